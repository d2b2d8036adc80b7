"""How one secret becomes many: dstack's two key derivations, both HKDF-SHA256 (RFC 5869), 32 bytes out.

    v0   salt "RATLS"              info = context parts, one after the other
    v1   salt "dstack-guest-v1"    info = LP("dstack-guest-v1-key") || LP(algorithm) || LP(domain)

LP(x) is the length of x as 32 bits, big-endian, and x. Without it, v0 cannot tell ("a", "bc") from ("ab", "c").
"""

from hashlib import sha256
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from strongroom.errors import FormatError

Octets: TypeAlias = bytes | bytearray | memoryview

SIZE: Final = 32  # bytes of every secret here
_P256: Final = ec.SECP256R1()
_P256_ORDER: Final = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551


def derive(secret: Octets, *context: bytes) -> bytes:
    """The 32 bytes of v0."""
    return _hkdf(b"RATLS", secret, b"".join(context))


def derive_v1(secret: Octets, algorithm: str, domain: str) -> bytes:
    """The 32 bytes of v1. FormatError when the domain is no Unicode."""
    return _hkdf(
        b"dstack-guest-v1", secret, lp(b"dstack-guest-v1-key") + lp(algorithm.encode()) + lp(octets(domain))
    )


def p256(secret: Octets) -> ec.EllipticCurvePrivateKey:
    """The P-256 key with this 32-byte big-endian scalar; FormatError when it is none of 1..n-1."""
    scalar = int.from_bytes(secret, "big")
    if len(secret) != SIZE or not 0 < scalar < _P256_ORDER:
        raise FormatError("p-256: the secret is not 32 bytes, or not a scalar of the curve")
    return ec.derive_private_key(scalar, _P256)


def derive_p256(parent: ec.EllipticCurvePrivateKey, *context: bytes) -> ec.EllipticCurvePrivateKey:
    """A child of a P-256 key."""
    return p256(derive(parent.private_numbers().private_value.to_bytes(SIZE, "big"), *context))


def flattened(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The 32 bytes that stand for a P-256 key where no curve is wanted: a disk's key, or X25519's.

    SHA-256 of its PKCS#8 in DER, in the form that has the public key inside (138 bytes).
    """
    return sha256(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).digest()


def lp(part: bytes) -> bytes:
    """`part` behind its length in 32 bits, big-endian."""
    return len(part).to_bytes(4, "big") + part


def octets(text: str) -> bytes:
    """UTF-8; FormatError for text that has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise FormatError("path or domain: holds a lone surrogate, want unicode") from error


def _hkdf(salt: bytes, secret: Octets, info: bytes) -> bytes:
    if len(secret) != SIZE:
        raise FormatError(f"key derivation: the secret is {len(secret)} bytes, want {SIZE}")
    return HKDF(SHA256(), SIZE, salt, info).derive(secret)
