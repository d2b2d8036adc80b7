"""An OCI image layout: a directory of blobs, each named by its SHA-256 and checked against it whenever it is read.

    oci-layout             {"imageLayoutVersion": "1.0.0"}
    index.json             which images there are; of no authority, an image is asked for by its digest
    blobs/sha256/<hex>

The directory may belong to a stranger: links are not followed, and every byte read is hashed again.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Final, Self

from strongroom.errors import ConfigError, FormatError, MachineError, VerifyError
from strongroom.host.images.tree import in_words
from strongroom.host.removal import remove, undone
from strongroom.sealed.ocicrypt.image import (
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    REF_NAME,
    Descriptor,
    Image,
    manifests,
)
from strongroom.wire.canonical import pack_json, parse_json

PIECE: Final = 1 << 20  # bytes
PLATFORM: Final = "linux/amd64"
_MARK: Final = "oci-layout"
_INDEX: Final = "index.json"
_BLOBS: Final = ("blobs", "sha256")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Layout:
    """An opened layout."""

    def __init__(self, path: Path, top: int, blobs: int) -> None:
        self.path: Final = path
        self._top: Final = top
        self._blobs: Final = blobs

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Raises FormatError for a directory that is no layout of version 1."""
        with ExitStack() as stack:
            top = _directory(path, None, stack)
            mark = parse_json(_whole(_MARK, top, 4096), f"{path}/{_MARK}", max_bytes=4096)
            version = mark.get("imageLayoutVersion") if isinstance(mark, dict) else None
            if not isinstance(version, str) or not version.startswith("1."):
                raise FormatError(f"{path}/{_MARK}: version is {str(version)[:20]!a}, want 1.0.0")
            folder = top
            for name in _BLOBS:
                folder = _directory(name, folder, stack)
            yield cls(path, top, folder)

    def find(self, tag: str | None = None) -> str:
        """The digest of the image with this tag, or of the only image. What index.json says is nobody's word."""
        listed = manifests(_whole(_INDEX, self._top, MAX_DOCUMENT))
        found = {one.digest for one in listed if tag is None or one.annotations.get(REF_NAME) == tag}
        if len(found) != 1:
            wanted = "one image" if tag is None else f"one image tagged {tag[:80]!a}"
            raise ConfigError(f"{self.path}: has {len(found)} of them, want {wanted}")
        return found.pop()

    def tag_of(self, digest: str) -> str | None:
        """What index.json calls an image."""
        listed = manifests(_whole(_INDEX, self._top, MAX_DOCUMENT))
        return next(
            (
                one.annotations[REF_NAME]
                for one in listed
                if one.digest == digest and REF_NAME in one.annotations
            ),
            None,
        )

    def image(self, digest: str, *, platform: str = PLATFORM) -> Image:
        """The image with this digest, or where it is an index, the one for `platform` in it."""
        data = self.document(digest)
        value = parse_json(data, digest, max_bytes=MAX_DOCUMENT, max_depth=32)
        if isinstance(value, dict) and (value.get("mediaType") == INDEX or "manifests" in value):
            fit = [one for one in manifests(data) if one.platform == platform and one.media_type == MANIFEST]
            if len(fit) != 1:
                raise ConfigError(
                    f"{self.path}: {digest} lists {len(fit)} images for {platform[:40]!a}, want one"
                )
            data = self.document(fit[0].digest)
        return Image.parse(data)

    def document(self, digest: str) -> bytes:
        """A small blob, verified."""
        content = _whole(digest.removeprefix("sha256:"), self._blobs, MAX_DOCUMENT)
        if (found := f"sha256:{sha256(content).hexdigest()}") != digest:
            raise VerifyError(f"{self.path}: blob {digest} has digest {found}")
        return content

    @contextmanager
    def blob(self, one: Descriptor) -> Iterator[FileIO]:
        """A blob as a file of the right length, its content not yet verified."""
        with FileIO(_regular(one.digest.removeprefix("sha256:"), self._blobs), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) != one.size:
                raise VerifyError(f"{self.path}: blob {one.digest} is {size} bytes, want {one.size}")
            yield file


class NewLayout:
    """A layout being made, in a directory that is new. It is one when `finish()` has been called."""

    def __init__(self, path: Path, mode: int) -> None:
        self.path: Final = path
        self._mode: Final = mode  # of files

    @classmethod
    @contextmanager
    def create(cls, path: Path, *, private: bool) -> Iterator[Self]:
        """ConfigError when there is something already. When making it fails, nothing of it stays.

        What is in a private one nobody else can read: directories have mode 0700, and files 0600.
        """
        existed = path.exists()
        try:
            path.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(f"{path}: not empty, want an empty or absent directory")
        except OSError as error:
            raise MachineError(f"{path}: {(error.strerror or 'failed').lower()}") from error

        def undo() -> None:
            for name in (_BLOBS[0], _INDEX, _MARK):
                remove(path / name)
            if not existed:
                path.rmdir()

        with undone(undo, f"what was written to {path}"), in_words(str(path)):
            folder = path
            for name in _BLOBS:
                (folder := folder / name).mkdir(mode=0o700 if private else 0o755)
            yield cls(path, 0o600 if private else 0o644)

    @contextmanager
    def blob(self) -> Iterator["NewBlob"]:
        """A blob to write; it is named when it is finished, and gone when it is not."""
        new = NewBlob(self.path.joinpath(*_BLOBS), self._mode)
        try:
            yield new
        finally:
            new.close()

    def document(self, media_type: str, content: bytes) -> Descriptor:
        with self.blob() as new:
            new.write(content)
            return new.finish(media_type)

    def finish(self, index: bytes) -> None:
        self._write(_INDEX, index)
        self._write(_MARK, pack_json({"imageLayoutVersion": "1.0.0"}))

    def _write(self, name: str, content: bytes) -> None:
        with os.fdopen(os.open(self.path / name, _NEW, self._mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


class NewBlob:
    def __init__(self, folder: Path, mode: int) -> None:
        self._mode = mode
        self._temporary = folder / f".new-{os.getpid()}"
        self._folder = folder
        self._file = FileIO(os.open(self._temporary, _NEW, 0o600), "wb")
        self._digest = sha256()
        self._size = 0

    def write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._digest.update(piece)
        self._size += len(piece)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"

    def finish(self, media_type: str, annotations: dict[str, str] | None = None) -> Descriptor:
        os.fsync(self._file.fileno())
        os.fchmod(self._file.fileno(), self._mode)
        os.rename(self._temporary, self._folder / self._digest.hexdigest())
        return Descriptor(
            media_type=media_type, digest=self.digest, size=self._size, annotations=annotations or {}
        )

    def close(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _directory(path: Path | str, within: int | None, stack: ExitStack) -> int:
    try:
        fd = os.open(path, _DIRECTORY, dir_fd=within)
    except OSError as error:
        raise MachineError(f"{path}: {(error.strerror or 'failed').lower()}, want an image layout") from error
    stack.callback(os.close, fd)
    return fd


def _regular(name: str, directory: int) -> int:
    try:
        fd = os.open(name, _FILE, dir_fd=directory)
    except FileNotFoundError:
        raise VerifyError(f"image layout: {name} is missing") from None
    except OSError as error:
        raise MachineError(f"image layout: {name}: {(error.strerror or 'failed').lower()}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise VerifyError(f"image layout: {name} is not a regular file")
    return fd


def _whole(name: str, directory: int, most: int) -> bytes:
    with os.fdopen(_regular(name, directory), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FormatError(f"image layout: {name} is more than {most} bytes")
    return content
