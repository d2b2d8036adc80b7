"""Plain signatures by the kinds of keys that dstack's interface knows.

    algorithm            signs                   signature            public key
    ed25519              the data (RFC 8032)     R || S, 64 bytes     32 bytes
    secp256k1            SHA-256 of the data     r || s, 64, low s    33 bytes, compressed
    secp256k1_prehashed  the data, 32 bytes      r || s, 64, low s    33 bytes, compressed

One 32-byte secret serves all three: that is how the interface derives keys, and not for us to change.
"""

from enum import StrEnum
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.recoverable import CURVE, ORDER, Secp256k1PrivateKey

SignatureKey = Secp256k1PrivateKey | Ed25519PrivateKey
SIZE: Final = 64  # bytes of a signature


class Algorithm(StrEnum):
    SECP256K1 = "secp256k1"
    ED25519 = "ed25519"
    SECP256K1_PREHASHED = "secp256k1_prehashed"  # a way to sign, not a kind of key

    @classmethod
    def of_key(cls, name: str) -> Self:
        """The kind of key that a caller names; secp256k1 is also called k256, or nothing at all."""
        return cls._of({"": "secp256k1", "k256": "secp256k1"}.get(name, name), {"secp256k1", "ed25519"})

    @classmethod
    def of_signature(cls, name: str) -> Self:
        """The way to sign that a caller names; it has no default."""
        return cls._of({"k256": "secp256k1"}.get(name, name), {*cls})

    @classmethod
    def _of(cls, name: str, known: set[str]) -> Self:
        if name not in known:
            raise FormatError(f"unsupported algorithm: got {name[:40]!a}, want {' or '.join(sorted(known))}")
        return cls(name)

    @property
    def key(self) -> "Algorithm":
        """The kind of key that signs this way."""
        return Algorithm.ED25519 if self is Algorithm.ED25519 else Algorithm.SECP256K1


def load(secret: bytes, algorithm: Algorithm) -> SignatureKey:
    """The private key of 32 secret bytes: an ed25519 seed, or a secp256k1 scalar, big-endian."""
    if algorithm is Algorithm.ED25519:
        return Ed25519PrivateKey.from_private_bytes(secret)
    return Secp256k1PrivateKey(secret)


def public_bytes(key: SignatureKey) -> bytes:
    """33 bytes for secp256k1 (compressed), 32 for ed25519."""
    if isinstance(key, Ed25519PrivateKey):
        return key.public_key().public_bytes_raw()
    return key.public


def sign(key: SignatureKey, algorithm: Algorithm, data: bytes) -> bytes:
    """64 bytes. FormatError for a prehashed message that is not 32 bytes."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(_digest(algorithm, data))[:SIZE]


def verify(algorithm: Algorithm, data: bytes, signature: bytes, public_key: bytes) -> None:
    """Raise VerifyError unless `signature` is that key's over `data`; FormatError for what cannot be either.

    A high s is well-formed and never valid: the same signer could have made the low one, and anybody else can
    make one of the other.
    """
    if len(signature) != SIZE:
        raise FormatError(f"signature: {len(signature)} bytes, want {SIZE}")
    if algorithm is Algorithm.ED25519:
        _verify_ed25519(data, signature, public_key)
    else:
        _verify_secp256k1(_digest(algorithm, data), signature, public_key)


def _verify_ed25519(data: bytes, signature: bytes, public_key: bytes) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError as error:
        raise FormatError(f"public key: {len(public_key)} bytes, want 32 (ed25519)") from error
    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise VerifyError("signature: it is not this key's over this data") from error


def _verify_secp256k1(digest: bytes, signature: bytes, public_key: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not 0 < r < ORDER or not 0 < s < ORDER:
        raise FormatError("signature: r or s is out of range")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("public key: not a point of secp256k1, compressed or not") from error
    if s > ORDER // 2:
        raise VerifyError("signature: s is high, want the low one")
    try:
        key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))
    except InvalidSignature as error:
        raise VerifyError("signature: it is not this key's over this data") from error


def _digest(algorithm: Algorithm, data: bytes) -> bytes:
    if algorithm is not Algorithm.SECP256K1_PREHASHED:
        return sha256(data).digest()
    if len(data) != 32:
        raise FormatError(f"pre-hashed signing requires a 32-byte digest, but received {len(data)} bytes")
    return data
