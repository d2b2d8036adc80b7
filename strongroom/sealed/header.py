"""The 104 bytes in the clear at the front of a MANIFEST. Authenticated as associated data of what follows.

    off len field       encoding       rule
      0   8 magic       b"SRSEALED"    exact
      8   2 version     u16 BE         2
     10   1 suite       u8             a Suite member
     11   1 chunk_log2  u8             16..20, a chunk is 2**n bytes of plaintext
     12   4 reserved    bytes          all zero
     16   8 epoch       u64 BE         1..2**53-1, grows with every release of the model
     24  16 volume_id   bytes          random, kept when a tree is updated
     40  32 salt        bytes          random, fresh for every MANIFEST
     72  32 commitment  bytes          derived from the model key and the salt

Source: docs/formats/sealed.md, section 3.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, Self

from strongroom.errors import FormatError

MAGIC: Final = b"SRSEALED"
VERSION: Final = 2
MAX_EPOCH: Final = 2**53 - 1  # every JSON reader can hold it
DEFAULT_CHUNK_LOG2: Final = 17
_LAYOUT: Final = Struct(">8sHBB4sQ16s32s32s")
SIZE: Final = _LAYOUT.size


class Suite(IntEnum):
    """What sealed the tree: the cipher of chunks and manifest, and the hash of keys and digests."""

    AES_256_GCM_SHA_256 = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHeader:
    suite: Suite = Suite.AES_256_GCM_SHA_256
    chunk_log2: int = DEFAULT_CHUNK_LOG2
    epoch: int
    volume_id: bytes
    salt: bytes
    commitment: bytes

    def __post_init__(self) -> None:
        if not 16 <= self.chunk_log2 <= 20:
            raise FormatError(f"manifest: chunk_log2 is {self.chunk_log2}, want 16..20")
        if not 1 <= self.epoch <= MAX_EPOCH:
            raise FormatError(f"manifest: epoch is {self.epoch}, want 1..{MAX_EPOCH}")
        for name, want in (("volume_id", 16), ("salt", 32), ("commitment", 32)):
            if len(getattr(self, name)) != want:
                raise FormatError(f"manifest: {name} is {len(getattr(self, name))} bytes, want {want}")

    @property
    def chunk_size(self) -> int:
        """Plaintext bytes in every chunk of a file but the last."""
        return 1 << self.chunk_log2

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read exactly SIZE bytes, or raise FormatError naming the first broken rule."""
        if len(data) != SIZE:
            raise FormatError(f"manifest: header is {len(data)} bytes, want {SIZE}")
        magic, version, suite, chunk_log2, reserved, epoch, volume_id, salt, commitment = _LAYOUT.unpack(data)
        if magic != MAGIC:
            raise FormatError(f"manifest: magic is {magic.hex()}, want {MAGIC.hex()}")
        if version != VERSION:
            raise FormatError(f"manifest: version is {version}, want {VERSION}")
        if suite not in {*Suite}:
            raise FormatError(f"manifest: suite is {suite}, want one of {[*map(int, Suite)]}")
        if any(reserved):
            raise FormatError(f"manifest: bytes [12:16] are {reserved.hex()}, want zero")
        return cls(
            suite=Suite(suite),
            chunk_log2=chunk_log2,
            epoch=epoch,
            volume_id=volume_id,
            salt=salt,
            commitment=commitment,
        )

    def pack(self) -> bytes:
        return _LAYOUT.pack(
            MAGIC,
            VERSION,
            self.suite,
            self.chunk_log2,
            bytes(4),
            self.epoch,
            self.volume_id,
            self.salt,
            self.commitment,
        )
