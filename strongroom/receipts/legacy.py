"""Signed answers and their report as clients of dstack's vllm-proxy expect them: formats and signatures.

    text         SHA-256 of the request body in hex, ":", SHA-256 of the response body in hex
    ecdsa        Ethereum's personal message (EIP-191) on secp256k1, "0x" and r || s || v in hex, v 27 or 28
    ed25519      over the text itself, 64 bytes in hex

    report_data  signing key (20-byte address, or 32 bytes of ed25519) padded to 32 bytes || nonce (32)
    version 2    SHA-256(signing key || SHA-256 of the TLS key's SPKI) || nonce

Both hashes are of bytes on the wire, and made by whoever saw them there: a hash that a client dictates says nothing.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.keccak import keccak256
from strongroom.keys.recoverable import CURVE, recover, sign_recoverable
from strongroom.wire.canonical import JSON

ECDSA: Final = "ecdsa"  # the default of its clients
ED25519: Final = "ed25519"
NONCE: Final = 32  # bytes
_DIGEST: Final = 32  # bytes
_PREFIX: Final = b"\x19Ethereum Signed Message:\n"
_TEXT: Final = re.compile(r"[0-9a-f]{64}:[0-9a-f]{64}")
_SIGNATURES: Final = {ECDSA: re.compile(r"0x[0-9a-f]{130}"), ED25519: re.compile(r"[0-9a-f]{128}")}
_ADDRESSES: Final = {ECDSA: re.compile(r"0x[0-9A-Fa-f]{40}"), ED25519: re.compile(r"[0-9a-f]{64}")}
_MEMBERS: Final = frozenset({"text", "signature", "signing_address", "signing_algo"})

Key = ec.EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySignature:
    """The answer to GET /v1/signature/{id}."""

    text: str
    signature: str
    signing_address: str
    signing_algo: str

    def __post_init__(self) -> None:
        if self.signing_algo not in _SIGNATURES:
            raise FormatError(f"signature: algorithm is {self.signing_algo[:40]!a}, want ecdsa or ed25519")
        for name, pattern in (
            ("text", _TEXT),
            ("signature", _SIGNATURES[self.signing_algo]),
            ("signing_address", _ADDRESSES[self.signing_algo]),
        ):
            if not pattern.fullmatch(getattr(self, name)):
                raise FormatError(f"signature.{name}: not of the form {pattern.pattern}")

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        if not isinstance(value, dict) or value.keys() != _MEMBERS:
            raise FormatError(f"signature: want an object of exactly {', '.join(sorted(_MEMBERS))}")
        members = {name: member for name, member in value.items() if isinstance(member, str)}
        if members.keys() != _MEMBERS:
            raise FormatError(f"signature.{min(_MEMBERS - members.keys())}: not text")
        return cls(**members)

    def to_json(self) -> dict[str, JSON]:
        return {
            "text": self.text,
            "signature": self.signature,
            "signing_address": self.signing_address,
            "signing_algo": self.signing_algo,
        }


def text(*, request: bytes, response: bytes) -> str:
    """What is signed, of the SHA-256 of both bodies."""
    return f"{request.hex()}:{response.hex()}"


def sign(key: Key, *, request: bytes, response: bytes) -> LegacySignature:
    """A signature over the SHA-256 of a request body and of its response body."""
    said = text(request=request, response=response)
    if isinstance(key, Ed25519PrivateKey):
        signature, algorithm = key.sign(said.encode()).hex(), ED25519
    else:
        raw = sign_recoverable(key, personal_digest(said.encode()))
        signature, algorithm = f"0x{raw[:64].hex()}{raw[64] + 27:02x}", ECDSA
    return LegacySignature(
        text=said, signature=signature, signing_address=address(key), signing_algo=algorithm
    )


def verify(signed: LegacySignature, *, request: bytes, response: bytes, signing_address: str) -> None:
    """Raise VerifyError unless this address signed these two hashes, FormatError for a signature out of range."""
    if signed.text != (want := text(request=request, response=response)):
        raise VerifyError(f"signature: it is over {signed.text}, want {want}")
    if signed.signing_algo == ED25519:
        found = signed.signing_address
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found))
        try:
            public.verify(bytes.fromhex(signed.signature), signed.text.encode())
        except InvalidSignature as error:
            raise VerifyError("signature: it does not match") from error
    else:
        raw = bytes.fromhex(signed.signature[2:])
        if raw[64] not in {27, 28}:
            raise FormatError(f"signature: v is {raw[64]}, want 27 or 28")
        found = _checksummed(
            recover(personal_digest(signed.text.encode()), raw[:64] + bytes((raw[64] - 27,)))
        )
    if found.lower() != signing_address.lower():
        raise VerifyError(f"signature: signed by {found}, want {signing_address[:80]}")


def personal_digest(message: bytes) -> bytes:
    """The 32 bytes that EIP-191 signs."""
    return keccak256(_PREFIX + str(len(message)).encode() + message)


def address(key: Key) -> str:
    """How the report names a key: a checksummed address (EIP-55), or the ed25519 public key in hex."""
    if isinstance(key, Ed25519PrivateKey):
        return key.public_key().public_bytes_raw().hex()
    return _checksummed(key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))


def report_data(signing_address: str, *, nonce: bytes, tls_spki_sha256: bytes | None = None) -> bytes:
    """64 bytes that tie a signing key to a nonce; and, in version 2, to the SHA-256 of a TLS key's SPKI."""
    if len(nonce) != NONCE:
        raise FormatError(f"nonce: {len(nonce)} bytes, want {NONCE}")
    if tls_spki_sha256 is not None and len(tls_spki_sha256) != _DIGEST:
        raise FormatError(f"tls_spki_sha256: {len(tls_spki_sha256)} bytes, want {_DIGEST}")
    if not any(pattern.fullmatch(signing_address) for pattern in _ADDRESSES.values()):
        raise FormatError(f"signing address: {signing_address[:80]!a} is none")
    key = bytes.fromhex(signing_address.removeprefix("0x"))
    if tls_spki_sha256 is not None:
        return sha256(key + tls_spki_sha256).digest() + nonce
    return key.ljust(32, b"\0") + nonce


def _checksummed(compressed: bytes) -> str:
    point = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, compressed)
    raw = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    digits = keccak256(raw[1:])[12:].hex()
    cased = keccak256(digits.encode()).hex()
    upper = (d.upper() if c in "89abcdef" else d for d, c in zip(digits, cased, strict=False))
    return "0x" + "".join(upper)
