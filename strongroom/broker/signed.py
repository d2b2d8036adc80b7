"""A request of an administrator: signed by an Ed25519 key that the broker knows, good for one broker, once.

    signature   Ed25519 over "strongroom/admin/v1" || 00 || canonical JSON of
                {"body_sha256": HEX64, "broker": HEX64, "method": TEXT, "nonce": TEXT, "path": TEXT, "time": N}

`broker` is the SHA-256 of the TLS key the request is sent to (64 zeros where there is no TLS), so that no other
broker can pass a request on; `time` is in unix seconds. Four headers carry the rest: key, time, nonce, signature.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import b64u, pack_json, unb64u

ADMIN_PREFIX: Final = "/strongroom/v1/admin"
NONCE_BYTES: Final = 16
KEY_BYTES: Final = 32
WINDOW: Final = timedelta(seconds=60)  # how far an administrator's clock may be from ours
NO_TLS: Final = bytes(32)
_LABEL: Final = b"strongroom/admin/v1\0"
_KEY: Final = "x-strongroom-key"
_TIME: Final = "x-strongroom-time"
_NONCE: Final = "x-strongroom-nonce"
_SIGNATURE: Final = "x-strongroom-signature"
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """What was asked, and who says so. `verify` before anything of it is believed."""

    method: str
    path: str
    body: bytes = field(repr=False)
    broker: bytes  # SHA-256 of the SPKI of its TLS key
    key: bytes  # Ed25519 public key, 32 bytes
    time: int
    nonce: bytes
    signature: bytes = field(default=b"", repr=False)

    def signed(self, private: Ed25519PrivateKey) -> dict[str, str]:
        """The headers of this request under the private half of `key`."""
        return {
            _KEY: b64u(self.key),
            _TIME: str(self.time),
            _NONCE: b64u(self.nonce),
            _SIGNATURE: b64u(private.sign(self.message())),
        }

    @classmethod
    def from_headers(
        cls, headers: Mapping[str, str], *, method: str, path: str, body: bytes, broker: bytes
    ) -> Self:
        """FormatError for headers that are missing or malformed. Names of `headers` are in lower case."""
        if missing := {_KEY, _TIME, _NONCE, _SIGNATURE} - headers.keys():
            raise FormatError(f"admin request: no header {min(missing)}, want it signed")
        if not _SECONDS.fullmatch(headers[_TIME]):
            raise FormatError(f"admin request: {_TIME}: want whole unix seconds")
        return cls(
            method=method,
            path=path,
            body=body,
            broker=broker,
            key=_sized(headers, _KEY, KEY_BYTES),
            time=int(headers[_TIME]),
            nonce=_sized(headers, _NONCE, NONCE_BYTES),
            signature=_sized(headers, _SIGNATURE, 64),
        )

    def verify(self, now: datetime) -> None:
        """VerifyError unless `key` signed exactly this, within WINDOW of `now`. The nonce is the caller's matter."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(self.signature, self.message())
        except InvalidSignature:
            raise VerifyError(
                "admin request: the signature is not of this key over this request to this broker"
            ) from None
        if abs(now.timestamp() - self.time) > WINDOW.total_seconds():
            off = int(self.time - now.timestamp())
            raise VerifyError(
                f"admin request: its time is {off} s from the broker's, want at most "
                f"{int(WINDOW.total_seconds())}"
            )

    def message(self) -> bytes:
        """The bytes that are signed."""
        return _LABEL + pack_json(
            {
                "body_sha256": sha256(self.body).hexdigest(),
                "broker": self.broker.hex(),
                "method": self.method,
                "nonce": b64u(self.nonce),
                "path": self.path,
                "time": self.time,
            }
        )


def parse_key(text: str, subject: str) -> bytes:
    """The 32 bytes of an Ed25519 public key in base64url."""
    key = unb64u(text, subject)
    if len(key) != KEY_BYTES:
        raise FormatError(f"{subject}: {len(key)} bytes, want the {KEY_BYTES} of an Ed25519 key")
    return key


def _sized(headers: Mapping[str, str], name: str, size: int) -> bytes:
    value = unb64u(headers[name], f"admin request: {name}")
    if len(value) != size:
        raise FormatError(f"admin request: {name}: {len(value)} bytes, want {size}")
    return value
