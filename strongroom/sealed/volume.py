"""A MANIFEST opened in the order that matters, and how one is made.

The order of refusals is part of the contract: epoch, root digest, key commitment, manifest tag, path hygiene,
and then, with TAGS at hand, their digest. Nothing is decrypted before the first three held.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError, PolicyError, VerifyError
from strongroom.sealed.chunks import TAG_SIZE, ChunkCipher, Chunking
from strongroom.sealed.header import SIZE, ManifestHeader
from strongroom.sealed.keys import Octets, VolumeKeys
from strongroom.sealed.manifest import MAX_BODY, Manifest, SealedFile

MAX_MANIFEST: Final = SIZE + MAX_BODY + TAG_SIZE  # bytes of a whole MANIFEST
_NONCE: Final = bytes(12)  # the manifest key is fresh with every salt and seals once


@dataclass(frozen=True, slots=True)
class OpenedObject:
    """One object's way from ciphertext to plaintext: where its tags are, and what opens its chunks."""

    file: SealedFile
    chunking: Chunking
    tags: memoryview = field(repr=False)

    @classmethod
    def of(cls, file: SealedFile, tags: Octets, *, chunk_log2: int) -> Self:
        return cls(file, Chunking(file.size, chunk_log2), memoryview(tags))

    def cipher(self) -> ChunkCipher:
        """Made when the object is read: one takes two kilobytes, and a tree may have many objects."""
        return ChunkCipher(key=self.file.key, object_id=self.file.object_id, chunking=self.chunking)

    def tag(self, index: int) -> memoryview:
        return self.tags[index * TAG_SIZE : (index + 1) * TAG_SIZE]


@dataclass(frozen=True, slots=True)
class Volume:
    """A genuine manifest of the wanted epoch. Its objects are reached with open_objects()."""

    header: ManifestHeader
    manifest: Manifest
    root: bytes

    @property
    def tags_size(self) -> int:
        """Exact length of TAGS in bytes."""
        return TAG_SIZE * sum(self.chunking(file).count for file in self.manifest.objects)

    @property
    def tags_name(self) -> str:
        """The file name of TAGS under tags/."""
        return self.manifest.tags_sha256.hex()

    def chunking(self, file: SealedFile) -> Chunking:
        return Chunking(file.size, self.header.chunk_log2)

    def open_objects(self, tags: bytes) -> tuple[OpenedObject, ...]:
        """Every object in the order of the manifest, or VerifyError unless TAGS are those that were sealed."""
        if len(tags) != self.tags_size:
            raise VerifyError(f"tags: {len(tags)} bytes, want {self.tags_size}")
        if (digest := sha256(tags).digest()) != self.manifest.tags_sha256:
            raise VerifyError(f"tags: digest is {digest.hex()}, want {self.manifest.tags_sha256.hex()}")
        opened, whole, start = list[OpenedObject](), memoryview(tags), 0
        for file in self.manifest.objects:
            end = start + TAG_SIZE * self.chunking(file).count
            opened.append(OpenedObject.of(file, whole[start:end], chunk_log2=self.header.chunk_log2))
            start = end
        return tuple(opened)


def open_volume(data: bytes, *, model_key: Octets, epoch: int, root: bytes) -> Volume:
    """The volume a whole MANIFEST describes.

    Raises PolicyError for another epoch; VerifyError for another root digest, another key or a manifest that
    was changed; FormatError for bytes no sealer of ours would write.
    """
    if not SIZE + TAG_SIZE < len(data) <= MAX_MANIFEST:
        raise FormatError(f"manifest: got {len(data)} bytes, want {SIZE + TAG_SIZE + 1}..{MAX_MANIFEST}")
    header = ManifestHeader.parse(data[:SIZE])
    if header.epoch != epoch:
        raise PolicyError(f"manifest: epoch is {header.epoch}, want {epoch}")
    if (found := root_digest(data)) != root:
        raise VerifyError(f"manifest: root digest is {found.hex()}, want {root.hex()}")
    keys = VolumeKeys(model_key=model_key, salt=header.salt)
    keys.check_commitment(header.commitment, "manifest")
    try:
        body = AESGCM(keys.manifest_key).decrypt(_NONCE, memoryview(data)[SIZE:], data[:SIZE])
    except InvalidTag:
        raise VerifyError("manifest: tag does not verify") from None
    return Volume(header, Manifest.parse(body), root)


def seal_manifest(header: ManifestHeader, keys: VolumeKeys, manifest: Manifest) -> bytes:
    """The bytes of a whole MANIFEST. Call once per salt: the nonce is fixed."""
    clear = header.pack()
    return clear + AESGCM(keys.manifest_key).encrypt(_NONCE, manifest.pack(), clear)


def root_digest(data: bytes) -> bytes:
    """The 32 bytes that name one sealed tree: SHA-256 of its whole MANIFEST."""
    return sha256(data).digest()
