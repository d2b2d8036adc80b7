"""A layer of an image as a stream: hashed, decrypted, decompressed, in that order and in one pass each time."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from strongroom.errors import ConfigError, FormatError, VerifyError
from strongroom.host.images.layout import PIECE, Layout
from strongroom.keys.jwk import PrivateKey
from strongroom.sealed.ocicrypt.image import Descriptor
from strongroom.sealed.ocicrypt.layer import SUFFIX, LayerKey, Opening, is_encrypted, open_annotations

TAR: Final = "application/vnd.oci.image.layer.v1.tar"
GZIP: Final = f"{TAR}+gzip"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS

Progress = Callable[[int], None]  # bytes of blobs read since the last call


def _silent(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an opened layout, and the key to it where it is encrypted."""

    layout: Layout
    stored: Descriptor
    secret: tuple[LayerKey, bytes] | None = field(repr=False)

    @classmethod
    def open(cls, layout: Layout, stored: Descriptor, key: PrivateKey | None) -> "Layer":
        """VerifyError when it is encrypted for another key, ConfigError when there is none."""
        if not is_encrypted(stored.media_type):
            return cls(layout, stored, None)
        if key is None:
            raise ConfigError(f"layer {stored.digest} is encrypted, want a key")
        try:
            return cls(layout, stored, open_annotations(stored.annotations, key))
        except VerifyError as error:
            raise VerifyError(f"layer {stored.digest}: {error}") from None

    @property
    def media_type(self) -> str:
        """As it is once decrypted."""
        return self.stored.media_type.removesuffix(SUFFIX)

    def plain(self, progress: Progress = _silent) -> Iterator[bytes]:
        """The layer, decrypted. Nothing may be done with it for good before the end: then what is not the layer that
        the manifest names raises VerifyError."""
        digest, opening = sha256(), Opening(*self.secret) if self.secret is not None else None
        with self.layout.blob(self.stored) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                progress(len(piece))
                yield piece if opening is None else opening.update(piece)
        if (found := f"sha256:{digest.hexdigest()}") != self.stored.digest:
            raise VerifyError(f"layer {self.stored.digest}: has digest {found}")
        if opening is not None:
            try:
                opening.end()
            except VerifyError as error:
                raise VerifyError(f"layer {self.stored.digest}: {error}") from None

    def verify(self, progress: Progress = _silent) -> None:
        """Read it to the end, so that what comes next may look at it."""
        for _ in self.plain(progress):
            pass

    def tar(self) -> Iterator[bytes]:
        """The layer as a plain tar file."""
        if self.media_type == TAR:
            return self.plain()
        if self.media_type == GZIP:
            return _gunzip(self.plain(), self.stored.digest)
        raise ConfigError(f"layer {self.stored.digest}: is {self.media_type[:80]!a}, want {TAR} or {GZIP}")


def _gunzip(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    began = False
    try:
        for piece in pieces:
            rest = piece
            while rest:
                if inflater.eof:  # files of several members follow each other
                    inflater = zlib.decompressobj(_GZIP_WINDOW)
                began = True
                if plain := inflater.decompress(rest, PIECE):
                    yield plain
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        while not inflater.eof and (plain := inflater.decompress(inflater.unconsumed_tail, PIECE)):
            yield plain
    except zlib.error:
        raise FormatError(f"layer {name}: not gzip") from None
    if not began or not inflater.eof:
        raise FormatError(f"layer {name}: gzip ends early")
