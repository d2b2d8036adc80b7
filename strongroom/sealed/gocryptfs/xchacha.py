"""XChaCha20-Poly1305: ChaCha20-Poly1305 with a nonce of 24 bytes. Source: draft-irtf-cfrg-xchacha-03.

The first 16 bytes of the nonce give a key of their own, HChaCha20. A library that has only ChaCha20 gives it all the
same: its first 64 bytes are the permuted state plus the state it began with, so a subtraction takes that away again.
"""

from struct import Struct
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from strongroom.sealed.keys import Octets

_WORDS: Final = Struct("<4I")
_STREAM: Final = Struct("<4I32x4I")
_KEY: Final = Struct("<8I")
_CONSTANTS: Final = _WORDS.unpack(b"expand 32-byte k")
_NOTHING: Final = bytes(64)


class XChaCha20Poly1305:
    """Usable from several threads. Slow beside AES: each nonce takes a key schedule in Python."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt_into(self, nonce: Octets, data: Octets, aad: Octets, out: Octets) -> None:
        """Fill `out` with ciphertext || tag; `nonce` is 24 bytes."""
        self._for(nonce).encrypt_into(_tail(nonce), data, aad, out)

    def decrypt_into(self, nonce: Octets, data: Octets, aad: Octets, out: Octets) -> None:
        """Fill `out` with the plaintext of ciphertext || tag; InvalidTag as the library raises it."""
        self._for(nonce).decrypt_into(_tail(nonce), data, aad, out)

    def _for(self, nonce: Octets) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(hchacha20(self._key, nonce[:16]))


def hchacha20(key: bytes, nonce: Octets) -> bytes:
    """The 32-byte key that HChaCha20 derives from a key and 16 bytes."""
    stream = Cipher(ChaCha20(key, bytes(nonce)), mode=None).encryptor().update(_NOTHING)
    before = _CONSTANTS + _WORDS.unpack(nonce)
    after = _STREAM.unpack(stream)
    return _KEY.pack(*[(word - start) & 0xFFFFFFFF for word, start in zip(after, before, strict=True)])


def _tail(nonce: Octets) -> bytes:
    return b"\0\0\0\0" + bytes(nonce[16:])
