"""An application's environment, encrypted for its key (dstack's encrypted environment).

    blob        ephemeral X25519 public key (32) || iv (12) || AES-256-GCM of the text, no associated data
    key         the shared secret as it is
    text        {"env": [{"key": name, "value": text}, ...]}

Nothing in a blob says who made it, for which deployment, or when: the host can give an older one, or one of its
own. What a guest takes from it must not decide anything that attestation has not settled.

The public key comes with a signature of the service that keeps the private one, over Keccak-256 of
"dstack-env-encrypt-pubkey:" || app id || [u64_be(unix seconds)] || public key; the form without time lasts forever.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.derivation import SIZE, Octets
from strongroom.keys.keccak import keccak256
from strongroom.keys.recoverable import recover, sign_recoverable
from strongroom.wire.canonical import parse_json

MAX_ITEMS: Final = 1024
MAX_VALUE: Final = 128 * 1024  # bytes
MAX_BYTES: Final = 1 << 20  # of all names and values
MAX_AGE: Final = 300  # seconds since a key was signed
MAX_AHEAD: Final = 60  # seconds that the signer's clock may be ahead of ours
_IV: Final = 12
_TAG: Final = 16
_MAX_TEXT: Final = 8 << 20  # bytes: JSON may write one byte as six
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_LABEL: Final = b"dstack-env-encrypt-pubkey:"
_SUBJECT: Final = "encrypted environment"


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    value: str = field(repr=False)


def public_key(private: Octets) -> bytes:
    """The 32 bytes to encrypt for. `private` is the env key of an AppKeys."""
    return _private(private).public_key().public_bytes_raw()


def seal(text: bytes, recipient: bytes, *, ephemeral: X25519PrivateKey, iv: bytes) -> bytes:
    """The blob; `ephemeral` and the 12 bytes `iv` are fresh."""
    shared = _shared(ephemeral, recipient)
    return ephemeral.public_key().public_bytes_raw() + iv + AESGCM(shared).encrypt(iv, text, None)


def open_sealed(blob: bytes, private: Octets) -> bytes:
    """The text. FormatError for a blob cut short or a key of small order, VerifyError for one that does not open."""
    if len(blob) < SIZE + _IV + _TAG or len(blob) > _MAX_TEXT:
        raise FormatError(f"{_SUBJECT}: {len(blob)} bytes, want {SIZE + _IV + _TAG}..{_MAX_TEXT}")
    shared = _shared(_private(private), blob[:SIZE])
    try:
        return AESGCM(shared).decrypt(blob[SIZE : SIZE + _IV], blob[SIZE + _IV :], None)
    except InvalidTag:
        raise VerifyError(f"{_SUBJECT}: it does not open under this application's key") from None


def parse(text: bytes, *, allowed: Collection[str]) -> list[Variable]:
    """The variables whose names are allowed, in order; the others are left out, as dstack does.

    Raises FormatError, which quotes no value, when the text is not of its form or beyond the limits above.
    """
    value = parse_json(text, _SUBJECT, max_bytes=_MAX_TEXT, max_depth=3)
    items = value.get("env") if isinstance(value, dict) and value.keys() == {"env"} else None
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise FormatError(f"{_SUBJECT}: want an object of env, a list of at most {MAX_ITEMS}")
    found: list[Variable] = []
    total = 0
    for item in items:
        match item:
            case {"key": str(name), "value": str(content), **rest} if not rest:
                pass
            case _:
                raise FormatError(f"{_SUBJECT}: want objects of key and value, both text")
        size = len(content.encode())
        total += len(name.encode()) + size
        if size > MAX_VALUE or total > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: want at most {MAX_VALUE} bytes a value and {MAX_BYTES} in all")
        if name not in allowed:
            continue
        if not _NAME.fullmatch(name) or "\0" in content:
            raise FormatError(f"{_SUBJECT}: {name[:64]!a} is no variable, or its value holds a zero byte")
        found.append(Variable(name, content))
    if len({variable.name for variable in found}) != len(found):
        raise FormatError(f"{_SUBJECT}: a name appears twice")
    return found


def key_digest(key: bytes, *, app_id: bytes, signed_at: int | None) -> bytes:
    """What the service signs; `signed_at` in unix seconds, None for the form without time."""
    moment = b"" if signed_at is None else signed_at.to_bytes(8, "big")
    return keccak256(_LABEL + app_id + moment + key)


def sign_key(
    service: ec.EllipticCurvePrivateKey, key: bytes, *, app_id: bytes, signed_at: int | None
) -> bytes:
    """65 bytes by the service's secp256k1 key."""
    return sign_recoverable(service, key_digest(key, app_id=app_id, signed_at=signed_at))


def require_signed(
    key: bytes, signature: bytes, *, app_id: bytes, signed_at: int, now: int, signer: bytes
) -> None:
    """Raise VerifyError unless `signer` (compressed) signed this key for this application, lately."""
    if not -MAX_AHEAD <= now - signed_at <= MAX_AGE:
        raise VerifyError(f"{_SUBJECT}: key signed at {signed_at}, want {now - MAX_AGE}..{now + MAX_AHEAD}")
    found = recover(key_digest(key, app_id=app_id, signed_at=signed_at), signature)
    if found != signer:
        raise VerifyError(f"{_SUBJECT}: key signed by {found.hex()}, want {signer.hex()}")


def _private(private: Octets) -> X25519PrivateKey:
    if len(private) != SIZE:
        raise FormatError(f"{_SUBJECT}: the application's key is {len(private)} bytes, want {SIZE}")
    return X25519PrivateKey.from_private_bytes(private)


def _shared(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # also for a shared secret of zeros: a point of small order
        raise FormatError(f"{_SUBJECT}: not a public key that leads to a secret") from None
