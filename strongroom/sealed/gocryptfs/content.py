"""Contents of files: an 18-byte header, then blocks of up to 4096 bytes, each sealed alone.

    header    u16 BE version 2 || 16 random bytes, the file id
    block     AES-GCM  16 nonce || ciphertext || 16 tag
              AES-SIV  16 nonce || 16 tag || ciphertext
              XChaCha  24 nonce || ciphertext || 16 tag
    AAD       u64 BE block number || file id

An empty file is 0 bytes. A whole block of zero bytes on disk is a hole: it reads as zeros, and nothing vouches for it.
Source: gocryptfs, internal/contentenc and internal/cryptocore.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from struct import Struct
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.gocryptfs.config import Cipher
from strongroom.sealed.gocryptfs.xchacha import XChaCha20Poly1305
from strongroom.sealed.keys import Octets

BLOCK: Final = 4096
FILE_ID_SIZE: Final = 16
HEADER_SIZE: Final = 18
MAX_SIZE: Final = 1 << 60  # bytes of one file
TAG_SIZE: Final = 16
_HEADER: Final = Struct(">H16s")
AAD: Final = Struct(">Q16s")  # block number, file id
_VERSION: Final = 2
_RUN: Final = 256  # blocks whose slices are made ahead

Into: TypeAlias = Callable[[Octets, Octets, Octets, Octets], object]  # nonce, data, associated data, output


class ContentCipher:
    """Seals and opens blocks of files, many at a time. Usable from several threads."""

    __slots__ = (
        "_bodies",
        "_hole",
        "_nonces",
        "_plains",
        "cipher",
        "decrypt",
        "encrypt",
        "nonce_size",
        "overhead",
        "sealed_block",
    )

    header_size: Final = HEADER_SIZE

    def __init__(self, key: bytes, cipher: Cipher) -> None:
        self.cipher: Final = cipher
        self.nonce_size: Final = 24 if cipher is Cipher.XCHACHA else 16
        self.overhead: Final = self.nonce_size + TAG_SIZE
        self.sealed_block: Final = BLOCK + self.overhead
        encrypt, decrypt = _primitives(key, cipher)
        self.encrypt: Final = encrypt
        self.decrypt: Final = decrypt
        starts = range(0, _RUN * self.sealed_block, self.sealed_block)
        self._nonces: Final = [slice(at, at + self.nonce_size) for at in starts]
        self._bodies: Final = [slice(at + self.nonce_size, at + self.sealed_block) for at in starts]
        self._plains: Final = [slice(at * BLOCK, (at + 1) * BLOCK) for at in range(_RUN)]
        self._hole: Final = bytes(self.sealed_block)

    # Sizes and headers

    def plain_size(self, cipher_size: int) -> int:
        """Bytes of plaintext in an object of `cipher_size` bytes; FormatError for a size no object can have."""
        if cipher_size in (0, HEADER_SIZE):  # the header alone is left by a writer that stopped there
            return 0
        blocks, rest = divmod(cipher_size - HEADER_SIZE, self.sealed_block)
        if cipher_size < HEADER_SIZE or 0 < rest <= self.overhead:
            raise FormatError(f"object of {cipher_size} bytes: its last block is cut")
        return blocks * BLOCK + max(0, rest - self.overhead)

    def cipher_size(self, plain_size: int) -> int:
        """Bytes of the object that holds `plain_size` bytes."""
        if not 0 <= plain_size <= MAX_SIZE:
            raise FormatError(f"file of {plain_size} bytes, want 0..2**60")
        blocks = -(-plain_size // BLOCK)
        return HEADER_SIZE + plain_size + blocks * self.overhead if blocks else 0

    @staticmethod
    def new_header(file_id: bytes) -> bytes:
        """The header of a file; `file_id` is 16 random bytes."""
        _check_file_id(file_id)
        return _HEADER.pack(_VERSION, file_id)

    @staticmethod
    def parse_header(header: Octets) -> bytes:
        """The file id that a header of 18 bytes holds."""
        if len(header) != HEADER_SIZE:
            raise FormatError(f"file header: {len(header)} bytes, want {HEADER_SIZE}")
        version, file_id = _HEADER.unpack(header)
        if version != _VERSION:
            raise FormatError(f"file header: version is {version}, want {_VERSION}")
        _check_file_id(file_id)
        return bytes(file_id)

    # Blocks

    def length_of(self, sealed: int, first_block: int = 0) -> int:
        """Bytes of plaintext in `sealed` bytes of consecutive blocks, the last of which may be short."""
        full, rest = divmod(sealed, self.sealed_block)
        if 0 < rest <= self.overhead:
            raise FormatError(f"block {first_block + full}: {rest} bytes, want more than {self.overhead}")
        return full * BLOCK + max(0, rest - self.overhead)

    def open_blocks(self, file_id: bytes, first_block: int, sealed: memoryview, out: memoryview) -> int:
        """Fill `out` with the plaintext of consecutive whole blocks, the last of which may be short; its length.

        `out` may be longer. Raises VerifyError naming the first block that does not verify, FormatError for a last
        block without content; `out` then holds garbage.
        """
        size = self.length_of(len(sealed), first_block)
        for at in range(0, -(-len(sealed) // self.sealed_block), _RUN):
            piece = sealed[at * self.sealed_block : (at + _RUN) * self.sealed_block]
            self._open_run(file_id, first_block + at, piece, out[at * BLOCK : min(size, (at + _RUN) * BLOCK)])
        return size

    def open_block(self, file_id: bytes, number: int, sealed: memoryview, out: memoryview) -> None:
        """One block; `out` has exactly its length. A block of zeros is a hole. Raises as open_blocks() does."""
        nonce = bytes(sealed[: self.nonce_size])
        try:
            if any(nonce):
                self.decrypt(nonce, sealed[self.nonce_size :], AAD.pack(number, file_id), out)
                return
        except InvalidTag:
            pass
        if bytes(sealed) != self._hole:
            raise VerifyError(f"block {number}: tag does not verify")
        out[:] = bytes(BLOCK)

    def seal_blocks(
        self, file_id: bytes, first_block: int, plain: memoryview, out: memoryview, nonces: bytes
    ) -> int:
        """Fill `out` with the sealed blocks of `plain`, all of 4096 bytes but the last; their length.

        `out` may be longer. `nonces` is nonce_size random bytes for each block.
        """
        count, size = -(-len(plain) // BLOCK), self.nonce_size
        length = len(plain) + count * self.overhead
        if len(nonces) != count * size or len(out) < length:
            raise FormatError(f"seal: {len(nonces)} bytes of nonces, {len(out)} of room for {count} blocks")
        full = len(plain) // BLOCK
        for at in range(0, full, _RUN):
            run = range(at, min(at + _RUN, full))
            self._seal_run(file_id, first_block, run, plain, out, nonces)
        if full < count:
            at, nonce = full * self.sealed_block, nonces[full * size :]
            out[at : at + size] = nonce
            aad = AAD.pack(first_block + full, file_id)
            self.encrypt(nonce, plain[full * BLOCK :], aad, out[at + size : length])
        return length

    def seal_alone(self, plain: bytes, nonce: bytes) -> bytes:
        """A block that belongs to no file, such as the target of a link."""
        out = bytearray(self.overhead + len(plain))
        if len(nonce) != self.nonce_size:
            raise FormatError(f"seal: nonce is {len(nonce)} bytes, want {self.nonce_size}")
        out[: self.nonce_size] = nonce
        self.encrypt(nonce, plain, bytes(8), memoryview(out)[self.nonce_size :])
        return bytes(out)

    def open_alone(self, sealed: bytes, subject: str) -> bytes:
        """What seal_alone() was given; VerifyError naming `subject`."""
        if len(sealed) <= self.overhead:
            raise FormatError(f"{subject}: {len(sealed)} bytes sealed, want more than {self.overhead}")
        out, nonce = bytearray(len(sealed) - self.overhead), sealed[: self.nonce_size]
        try:
            if any(nonce):
                self.decrypt(nonce, sealed[self.nonce_size :], bytes(8), out)
                return bytes(out)
        except InvalidTag:
            pass
        raise VerifyError(f"{subject}: tag does not verify")

    def has_zeros(self, nonces: Iterable[memoryview]) -> bool:
        """Whether one of the nonces may be zero: that of a hole, or one that no writer may use."""
        return self._hole[: self.nonce_size] in b"".join(nonces)

    def _open_run(self, file_id: bytes, first: int, sealed: memoryview, out: memoryview) -> None:
        full, rest = divmod(len(sealed), self.sealed_block)
        if not self._open_at_once(file_id, first, full, sealed, out):
            for index in range(full):
                piece = sealed[index * self.sealed_block : (index + 1) * self.sealed_block]
                self.open_block(file_id, first + index, piece, out[self._plains[index]])
        if rest:
            self.open_block(file_id, first + full, sealed[-rest:], out[full * BLOCK :])

    def _open_at_once(
        self, file_id: bytes, first: int, full: int, sealed: memoryview, out: memoryview
    ) -> bool:
        """False when one by one they have to tell which does not verify, and which is a hole."""
        take = sealed.__getitem__
        nonces = list(map(take, self._nonces[:full]))
        if self.has_zeros(nonces):
            return False
        bodies, outs = map(take, self._bodies), map(out.__getitem__, self._plains)
        aads = map(AAD.pack, range(first, first + full), repeat(file_id))
        try:
            deque(map(self.decrypt, nonces, bodies, aads, outs), maxlen=0)
        except InvalidTag:
            return False
        return True

    def _seal_run(
        self, file_id: bytes, first: int, run: range, plain: memoryview, out: memoryview, nonces: bytes
    ) -> None:
        size = self.nonce_size
        keys = [nonces[at : at + size] for at in range(run.start * size, run.stop * size, size)]
        plain = plain[run.start * BLOCK : run.stop * BLOCK]
        out = out[run.start * self.sealed_block : run.stop * self.sealed_block]
        deque(map(out.__setitem__, self._nonces, keys), maxlen=0)
        deque(
            map(
                self.encrypt,
                keys,
                map(plain.__getitem__, self._plains),
                map(AAD.pack, range(first + run.start, first + run.stop), repeat(file_id)),
                map(out.__getitem__, self._bodies),
            ),
            maxlen=0,
        )


def _primitives(key: bytes, cipher: Cipher) -> tuple[Into, Into]:
    if cipher is Cipher.AES_GCM:
        gcm = AESGCM(key)
        return gcm.encrypt_into, gcm.decrypt_into
    if cipher is Cipher.XCHACHA:
        chacha = XChaCha20Poly1305(key)
        return chacha.encrypt_into, chacha.decrypt_into
    siv = AESSIV(key)

    def encrypt(nonce: Octets, data: Octets, aad: Octets, out: Octets) -> None:
        siv.encrypt_into(data, [aad, nonce], out)

    def decrypt(nonce: Octets, data: Octets, aad: Octets, out: Octets) -> None:
        siv.decrypt_into(data, [aad, nonce], out)

    return encrypt, decrypt


def _check_file_id(file_id: bytes) -> None:
    if len(file_id) != FILE_ID_SIZE or not any(file_id):
        raise FormatError(f"file id: {len(file_id)} bytes, want {FILE_ID_SIZE} that are not all zero")
