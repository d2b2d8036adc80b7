"""One object's chunks: how many, how long, and how each is sealed and opened.

AES-256-GCM under the object's own key. nonce = u32 BE domain || u64 BE index, domain 1 on the last chunk and 0
before; associated data = object id || u64 BE index. Nonces repeat for no key, because a key seals one object,
once. Source: docs/formats/sealed.md, section 5.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.keys import Octets

TAG_SIZE: Final = 16
_NONCE: Final = Struct(">IQ")
_AAD: Final = Struct(">16sQ")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a plaintext of `size` bytes (at least 1) is cut into chunks of 2**chunk_log2 bytes."""

    size: int
    chunk_log2: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise FormatError(f"chunks: size is {self.size}, want at least 1 byte")
        if self.count >= 1 << 32:
            raise FormatError(f"chunks: count is {self.count}, want less than 2**32")

    @property
    def chunk_size(self) -> int:
        return 1 << self.chunk_log2

    @property
    def count(self) -> int:
        return -(-self.size >> self.chunk_log2)

    def length(self, index: int) -> int:
        """Bytes in one chunk: all are full but the last."""
        if not 0 <= index < self.count:
            raise FormatError(f"chunks: index is {index}, want 0..{self.count - 1}")
        return min(self.chunk_size, self.size - (index << self.chunk_log2))


class ChunkCipher:
    """Seals and opens the chunks of one object by index. Usable from several threads."""

    __slots__ = ("_aead", "_last", "_object_id")

    def __init__(self, *, key: bytes, object_id: bytes, chunking: Chunking) -> None:
        self._aead = AESGCM(key)
        self._object_id = object_id
        self._last = chunking.count - 1

    def seal(self, index: int, plaintext: Octets, out: Octets) -> None:
        """Fill `out`, exactly TAG_SIZE longer than the plaintext, with ciphertext || tag."""
        self._aead.encrypt_into(self._nonce(index), plaintext, _AAD.pack(self._object_id, index), out)

    def open(self, index: int, sealed: Octets, out: Octets) -> None:
        """Fill `out` with the plaintext of ciphertext || tag.

        On VerifyError `out` holds bytes nobody vouches for: the caller must not let them leave, and should
        wipe them.
        """
        try:
            self._aead.decrypt_into(self._nonce(index), sealed, _AAD.pack(self._object_id, index), out)
        except InvalidTag:
            raise VerifyError(f"chunk {index}: tag does not verify") from None

    def _nonce(self, index: int) -> bytes:
        return _NONCE.pack(index == self._last, index)
