"""The key pair of sealed bodies: HPKE with ML-KEM-768 and X25519 together, HKDF-SHA256, AES-256-GCM.

    off  len  of a public key, as evidence speaks for it
      0   25  "strongroom/sealed-key/v1" and a zero byte
     25    6  BE16 of KEM, KDF and AEAD: 0x647a, 0x0001, 0x0002
     31 1184  ML-KEM-768 encapsulation key (FIPS 203)
   1215   32  X25519 public key (RFC 7748)

Its id is the SHA-256 of all of that. Source: RFC 9180, draft-ietf-hpke-pq; docs/formats/sealed-body.md.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from struct import pack
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import FormatError, VerifyError
from strongroom.wire.reader import Reader

LABEL: Final = b"strongroom/sealed-body/v1\0"
ENCAPSULATED: Final = 1120  # bytes before the ciphertext
TAG: Final = 16
SEED: Final = 32
ID: Final = 32
_MAGIC: Final = b"strongroom/sealed-key/v1\0"
_SUITE_IDS: Final = pack(">HHH", 0x647A, 1, 2)
_MLKEM: Final = 1184
_X25519: Final = 32
SIZE: Final = len(_MAGIC) + len(_SUITE_IDS) + _MLKEM + _X25519
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True)
class SealingKey:
    """What a client seals to."""

    mlkem: bytes = field(repr=False)
    x25519: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The key in exactly SIZE bytes. FormatError for another suite, and for bytes that are no keys."""
        reader = Reader(data, "sealed key")
        if reader.take(min(len(_MAGIC), reader.remaining)) != _MAGIC:
            raise FormatError(f"sealed key: it does not begin with {_MAGIC[:-1].decode()}")
        if (ids := reader.take(len(_SUITE_IDS))) != _SUITE_IDS:
            raise FormatError(f"sealed key: suite is {ids.hex()}, want {_SUITE_IDS.hex()}")
        key = cls(reader.take(_MLKEM), reader.take(_X25519))
        reader.end()
        key._public  # noqa: B018 - computed once: bytes that are no keys are refused here
        return key

    def pack(self) -> bytes:
        """What evidence speaks for."""
        return _MAGIC + _SUITE_IDS + self.mlkem + self.x25519

    @cached_property
    def id(self) -> bytes:
        return sha256(self.pack()).digest()

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Encapsulation and ciphertext, different each time: the library draws what randomness it takes."""
        return _SUITE.encrypt(plaintext, self._public, info)

    @cached_property
    def _public(self) -> MLKEM768X25519PublicKey:
        try:
            return MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.mlkem),
                X25519PublicKey.from_public_bytes(self.x25519),
            )
        except ValueError as error:
            raise FormatError("sealed key: the bytes are no public keys of this suite") from error


@dataclass(frozen=True)
class OpeningKey:
    """What a machine opens with."""

    public: SealingKey
    _private: MLKEM768X25519PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes, fresh: bytes) -> Self:
        """The key of SEED secret bytes and `fresh`, which need not be secret: another key for every other value."""
        if len(seed) != SEED:
            raise FormatError(f"sealed key: seed is {len(seed)} bytes, want {SEED}")
        derived = HKDF(algorithm=SHA256(), length=96, salt=fresh, info=_MAGIC).derive(seed)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(derived[:64])
        x25519 = X25519PrivateKey.from_private_bytes(derived[64:])
        public = SealingKey(mlkem.public_key().public_bytes_raw(), x25519.public_key().public_bytes_raw())
        return cls(public, MLKEM768X25519PrivateKey(mlkem, x25519))

    def open_sealed(self, sealed: bytes, info: bytes) -> bytes:
        """The plaintext. VerifyError for whatever was not sealed to this key with this `info`."""
        try:
            if len(sealed) < ENCAPSULATED + TAG:
                raise InvalidTag
            return _SUITE.decrypt(sealed, self._private, info)
        except (InvalidTag, ValueError):
            raise VerifyError("sealed request: it does not open with this key") from None
