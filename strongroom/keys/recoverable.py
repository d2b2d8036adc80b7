"""Signatures that name their signer: ECDSA on secp256k1 as 65 bytes, r || s || v.

r and s are 32 bytes big-endian and s is low; v (0..3) says which of the points with this r was meant, so that the
public key can be computed from signature and digest alone. Ethereum writes v + 27. The nonce is RFC 6979's, with
HMAC-SHA256.

All of it is libsecp256k1's: in constant time where a secret takes part, and a hundred times what OpenSSL and whole
numbers of Python do of this curve. What leaves here is as `cryptography` knows it, or bytes.

Source: SEC 1 version 2.0, section 4.1.6.
"""

from typing import Final, TypeAlias

import coincurve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, VerifyError

CURVE: Final = ec.SECP256K1()
ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
SIZE: Final = 65  # bytes of a signature
DIGEST: Final = 32  # bytes
SECRET: Final = 32  # bytes


class Secp256k1PrivateKey:
    """A private key that signs digests. `public` is the other half, compressed: 33 bytes (SEC 1 section 2.3.3)."""

    __slots__ = ("_key", "public")

    def __init__(self, secret: bytes) -> None:
        """`secret` is a scalar in 32 bytes, big-endian; FormatError when it is none of 1..n-1."""
        _scalar(secret)
        self._key = coincurve.PrivateKey(secret)
        self.public: Final = self._key.public_key.format()

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The other half for OpenSSL: it may be asked to verify, or to write a certificate."""
        return ec.EllipticCurvePublicKey.from_encoded_point(
            CURVE, self._key.public_key.format(compressed=False)
        )

    def sign(self, digest: bytes) -> bytes:
        """65 bytes over 32 bytes that are hashed already."""
        if len(digest) != DIGEST:
            raise FormatError(f"signature: digest is {len(digest)} bytes, want {DIGEST}")
        return self._key.sign_recoverable(digest, hasher=None)


SigningKey: TypeAlias = Secp256k1PrivateKey | ec.EllipticCurvePrivateKey


def private_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The key with this 32-byte big-endian scalar, for OpenSSL; FormatError when it is none of 1..n-1.

    OpenSSL computes the public half at once, which takes it half a millisecond.
    """
    return ec.derive_private_key(_scalar(secret), CURVE)


def compressed(key: ec.EllipticCurvePublicKey) -> bytes:
    """33 bytes (SEC 1 section 2.3.3)."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def sign_recoverable(key: SigningKey, digest: bytes) -> bytes:
    """65 bytes over 32 bytes that are hashed already."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        key = Secp256k1PrivateKey(key.private_numbers().private_value.to_bytes(SECRET, "big"))
    return key.sign(digest)


def recover(digest: bytes, signature: bytes) -> bytes:
    """The compressed public key whose holder made `signature` over `digest`; it says nothing of who that is.

    Raises FormatError for a signature out of shape (lengths, r, s or v out of range, s high), VerifyError when no
    key can have made it.
    """
    if len(digest) != DIGEST or len(signature) != SIZE:
        raise FormatError(f"signature: {len(signature)} bytes over {len(digest)}, want {SIZE} over {DIGEST}")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if not 0 < r < ORDER or not 0 < s <= ORDER // 2 or v > 3:
        raise FormatError("signature: r, s or v is out of range, or s is high")
    try:
        return coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None).format()
    except ValueError as error:
        raise VerifyError("signature: no key can have made it over this digest") from error


def _scalar(secret: bytes) -> int:
    scalar = int.from_bytes(secret, "big")
    if len(secret) != SECRET or not 0 < scalar < ORDER:
        raise FormatError("secp256k1: the secret is not 32 bytes, or not a scalar of the curve")
    return scalar
