"""Our own key derivation beside dstack's: keys that have an epoch, and keys that only sign.

    HKDF-SHA256(salt = "strongroom/keys/v1", ikm = app root key,
                info = LP(use) || LP(algorithm) || LP(path) || epoch as u32, big-endian)          32 bytes

LP(x) is the length of x as 32 bits, big-endian, and x. The use is part of it, so a key that signs inside is never the
one that is handed out under the same path, and neither is ever one of dstack's: their salts are others.
"""

from enum import StrEnum
from hashlib import sha256
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError
from strongroom.keys.derivation import SIZE, Octets, lp, octets, p256
from strongroom.keys.recoverable import Secp256k1PrivateKey

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | Ed25519PrivateKey | Secp256k1PrivateKey

MAX_EPOCH: Final = (1 << 32) - 1
_SALT: Final = b"strongroom/keys/v1"
_SIGNATURE: Final = 64  # bytes


class Use(StrEnum):
    """What a key may be used for. It cannot be changed afterwards: another use is another key."""

    EXPORT = "export"  # the caller is given the key itself
    SIGN = "sign"  # the caller is given signatures


class Kind(StrEnum):
    """What the 32 bytes are."""

    SECRET = "secret"  # as they are
    ED25519 = "ed25519"
    P256 = "p256"
    SECP256K1 = "secp256k1"


def derive_epoch(root: Octets, *, use: Use, kind: Kind, path: str, epoch: int) -> bytes:
    """The 32 bytes of a key; FormatError for an epoch outside 1..2^32-1, or a path that is no Unicode."""
    if not 0 < epoch <= MAX_EPOCH:
        raise FormatError(f"epoch: got {epoch}, want 1..{MAX_EPOCH}")
    if len(root) != SIZE:
        raise FormatError(f"key derivation: the secret is {len(root)} bytes, want {SIZE}")
    info = b"".join(map(lp, (use.encode(), kind.encode(), octets(path)))) + epoch.to_bytes(4, "big")
    return HKDF(SHA256(), SIZE, _SALT, info).derive(root)


def load(secret: bytes, kind: Kind) -> PrivateKey:
    """The private key in 32 bytes; FormatError for the kind that is none."""
    match kind:
        case Kind.ED25519:
            return Ed25519PrivateKey.from_private_bytes(secret)
        case Kind.P256:
            return p256(secret)
        case Kind.SECP256K1:
            return Secp256k1PrivateKey(secret)
    raise FormatError(f"key: {kind} is no kind of key pair")


def public(key: PrivateKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKey, data: bytes) -> bytes:
    """64 bytes over `data`: Ed25519, or r || s of ECDSA with SHA-256, s low, the nonce RFC 6979's."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, Secp256k1PrivateKey):
        return key.sign(sha256(data).digest())[:_SIGNATURE]
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
