"""A provider's word for one manifest, over one connection: an Ed25519 signature that is worth nothing anywhere else.

    signed   "strongroom/push/v1" 0x00 || enc(SHA-256 of the manifest) || enc(exporter)
    exporter 32 bytes of the connection's TLS exporter: label EXPORTER_LABEL, context the manifest's SHA-256
    header   Authorization: Strongroom-Push HEX64 BASE64URL BASE64URL    manifest, DER SPKI of the key, signature

Only the two ends of a connection know its exporter, and the guest has proved to be one of them before anything is
signed. So what one guest was sent cannot be played to another, or to the same one again.
Source: docs/formats/push.md, section 2.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, PolicyError, VerifyError
from strongroom.wire.canonical import b64u, unb64u
from strongroom.wire.framing import enc

EXPORTER_LABEL: Final = b"EXPORTER-strongroom-push"
SCHEME: Final = "Strongroom-Push"
SPKI_SIZE: Final = 44  # bytes
_LABEL: Final = b"strongroom/push/v1\0"
_SPKI_PREFIX: Final = bytes.fromhex(
    "302a300506032b6570032100"
)  # RFC 8410: what stands before the 32 bytes of a key
_HEADER: Final = re.compile(rf"{SCHEME} ([0-9a-f]{{64}}) ([A-Za-z0-9_-]{{59}}) ([A-Za-z0-9_-]{{86}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    manifest_sha256: bytes
    provider: bytes  # DER SubjectPublicKeyInfo
    signature: bytes = field(repr=False)

    @classmethod
    def sign(cls, key: Ed25519PrivateKey, *, manifest_sha256: bytes, exporter: bytes) -> Self:
        """`exporter` is that of the connection the offer goes over."""
        signature = key.sign(_signed(manifest_sha256, exporter))
        return cls(manifest_sha256=manifest_sha256, provider=spki_of(key.public_key()), signature=signature)

    @classmethod
    def parse(cls, header: str) -> Self:
        """The offer in the value of an Authorization header; it is not verified yet."""
        if not (found := _HEADER.fullmatch(header)):
            raise FormatError(f"offer: want {SCHEME}, a manifest's SHA-256, a key and a signature")
        return cls(
            manifest_sha256=bytes.fromhex(found[1]),
            provider=unb64u(found[2], "offer: key"),
            signature=unb64u(found[3], "offer: signature"),
        )

    @property
    def header(self) -> str:
        return f"{SCHEME} {self.manifest_sha256.hex()} {b64u(self.provider)} {b64u(self.signature)}"

    def verify(self, *, exporter: bytes, providers: Collection[bytes]) -> None:
        """PolicyError for a key that is not among `providers` (DER SPKI), VerifyError for another's signature."""
        if self.provider not in providers:
            raise PolicyError(f"offer: key {provider_name(self.provider)} may not push a model here")
        try:
            public_key(self.provider).verify(self.signature, _signed(self.manifest_sha256, exporter))
        except InvalidSignature:
            raise VerifyError("offer: signature does not verify over this connection") from None


def public_key(spki: bytes) -> Ed25519PublicKey:
    """The key in a DER SubjectPublicKeyInfo; FormatError for anything but Ed25519 in its one encoding."""
    if len(spki) != SPKI_SIZE or not spki.startswith(_SPKI_PREFIX):
        raise FormatError("provider key: want the DER SubjectPublicKeyInfo of an Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(spki[len(_SPKI_PREFIX) :])


def spki_of(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def provider_name(spki: bytes) -> str:
    """What a provider's key is called in events, answers and sentences: SHA-256 of its SPKI, in hex."""
    return sha256(spki).hexdigest()


def _signed(manifest_sha256: bytes, exporter: bytes) -> bytes:
    return _LABEL + enc(manifest_sha256) + enc(exporter)
