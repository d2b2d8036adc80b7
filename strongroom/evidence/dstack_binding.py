"""report_data in dstack's shapes, none of which is one of ours (binding.py).

    tagged    SHA-512(tag || ":" || content)                              64 bytes
    app key   "dip1::ed25519-pk:" or "dip1::secp256k1c-pk:", then base64url of the public key; zeros to 64 bytes
    other     what a caller gives, zeros to 64 bytes

A tag parts nothing from a caller who may ask for any 64 bytes: whoever verifies must also see the key at work.
"""

from enum import StrEnum
from hashlib import sha512
from typing import Final

from strongroom.errors import FormatError
from strongroom.wire.canonical import b64u

SIZE: Final = 64  # bytes of report_data
_KEY_PREFIXES: Final = {32: "dip1::ed25519-pk:", 33: "dip1::secp256k1c-pk:"}  # by length of the public key


class Tag(StrEnum):
    CERTIFICATE = "ratls-cert"  # content: DER SubjectPublicKeyInfo
    SERVICE_ROOT = "kms-root-ca"
    APPLICATION = "app-data"


def tagged(tag: Tag, content: bytes) -> bytes:
    """64 bytes."""
    return sha512(tag.encode() + b":" + content).digest()


def for_key(public_key: bytes) -> bytes:
    """64 bytes that name an application's key, 32 bytes of ed25519 or 33 of secp256k1."""
    if (prefix := _KEY_PREFIXES.get(len(public_key))) is None:
        raise FormatError(f"public key: {len(public_key)} bytes, want 32 (ed25519) or 33 (secp256k1)")
    return padded((prefix + b64u(public_key)).encode())


def padded(data: bytes) -> bytes:
    """64 bytes: `data`, then zeros."""
    if len(data) > SIZE:
        raise FormatError(f"report data is too long: {len(data)} bytes, want at most {SIZE}")
    return data + bytes(SIZE - len(data))
