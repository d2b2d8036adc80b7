"""Attested Confidential Inference, aci/1: the keyset that is a service's identity, and its receipts.

    keyset digest   "sha256:" and SHA-256 of the keyset's canonical JSON
    statement       {"keyset_digest":"...","nonce":"<64 hex>" or null,"purpose":"aci.report_data.v1"}, these bytes
    report_data     SHA-256 of the statement, then 32 zero bytes
    receipt         Ed25519 over the canonical JSON of the document without its signature

A service that runs in its own machine is a direct one: its receipts say what came in, what the engine was given and
what went out, and name no other service. Source: the aci/1 draft.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import JSON, pack_json

VERSION: Final = "aci/1"
PURPOSE: Final = "aci.report_data.v1"
RECEIVED: Final = "request.received"
FORWARDED: Final = "request.forwarded"
RETURNED: Final = "response.returned"
X25519: Final = "x25519-aes-256-gcm-hkdf-sha256"
SECP256K1: Final = "secp256k1-aes-256-gcm-hkdf-sha256"
_NONCE: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_MAX_STEPS: Final = 64
_MEMBERS: Final = frozenset(
    {
        "api_version", "receipt_id", "chat_id", "model", "workload_keyset_digest", "endpoint", "method",
        "served_at", "event_log", "key_id", "signature",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKey:
    key_id: str
    algo: str  # X25519 or SECP256K1
    public_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSKey:
    spki_sha256: bytes
    domain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """Every key a service uses, one for each role. Another key makes another service."""

    subject: str | None
    not_after: int  # unix seconds
    receipt_key_id: str
    receipt_key: bytes  # Ed25519, 32 bytes
    encryption: EncryptionKey | None = None
    tls: TLSKey | None = None

    def to_json(self) -> dict[str, JSON]:
        encryption: list[JSON] = []
        if self.encryption is not None:
            key = self.encryption
            encryption.append({"key_id": key.key_id, "algo": key.algo, "public_key": key.public_key.hex()})
        tls: list[JSON] = []
        if self.tls is not None:
            domain: dict[str, JSON] = {} if self.tls.domain is None else {"domain": self.tls.domain}
            tls.append({"spki_sha256": self.tls.spki_sha256.hex(), **domain})
        signing: JSON = {
            "key_id": self.receipt_key_id,
            "algo": "ed25519",
            "public_key": self.receipt_key.hex(),
        }
        return {
            "subject": self.subject,
            "not_after": self.not_after,
            "receipt_signing_keys": [signing],
            "e2ee_public_keys": encryption,
            "tls_public_keys": tls,
        }

    @property
    def digest(self) -> str:
        return hashed(pack_json(self.to_json()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event of a receipt: a body that was seen inside the machine, or something of our own beside it."""

    type: str
    body_hash: str
    more: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.body_hash):
            raise FormatError(f"aci receipt: body_hash is {self.body_hash[:80]!a}, want sha256:<64 hex>")

    def to_json(self) -> dict[str, JSON]:
        return {**self.more, "type": self.type, "body_hash": self.body_hash}


@dataclass(frozen=True, slots=True, kw_only=True)
class ACIReceipt:
    receipt_id: str
    chat_id: str | None
    model: str | None
    workload_keyset_digest: str
    endpoint: str
    method: str
    served_at: int  # unix seconds
    event_log: tuple[Step, ...]
    key_id: str
    signature: str = ""  # 128 hex

    def __post_init__(self) -> None:
        if not self.event_log or self.event_log[0].type != RECEIVED:
            raise FormatError(f"aci receipt: the first event is not {RECEIVED}")
        if not _DIGEST.fullmatch(self.workload_keyset_digest):
            raise FormatError("aci receipt: workload_keyset_digest is not sha256:<64 hex>")

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Read a signed receipt, not verified. Raises FormatError."""
        if not isinstance(value, dict) or value.keys() != _MEMBERS or value["api_version"] != VERSION:
            raise FormatError(f"aci receipt: want {VERSION} with exactly {', '.join(sorted(_MEMBERS))}")
        served_at, log = value["served_at"], value["event_log"]
        if type(served_at) is not int or served_at < 0 or not isinstance(log, list) or len(log) > _MAX_STEPS:
            raise FormatError("aci receipt: want served_at in unix seconds and a short event_log")
        if not _SIGNATURE.fullmatch(signature := _text(value, "signature")):
            raise FormatError("aci receipt.signature: want 128 lowercase hex digits")
        return cls(
            receipt_id=_text(value, "receipt_id"),
            chat_id=None if value["chat_id"] is None else _text(value, "chat_id"),
            model=None if value["model"] is None else _text(value, "model"),
            workload_keyset_digest=_text(value, "workload_keyset_digest"),
            endpoint=_text(value, "endpoint"),
            method=_text(value, "method"),
            served_at=served_at,
            event_log=tuple(map(_step, log)),
            key_id=_text(value, "key_id"),
            signature=signature,
        )

    def to_json(self) -> dict[str, JSON]:
        value: dict[str, JSON] = {
            "api_version": VERSION,
            "receipt_id": self.receipt_id,
            "chat_id": self.chat_id,
            "model": self.model,
            "workload_keyset_digest": self.workload_keyset_digest,
            "endpoint": self.endpoint,
            "method": self.method,
            "served_at": self.served_at,
            "event_log": [step.to_json() for step in self.event_log],
            "key_id": self.key_id,
        }
        return value | ({"signature": self.signature} if self.signature else {})

    @property
    def signed_part(self) -> bytes:
        return pack_json({name: value for name, value in self.to_json().items() if name != "signature"})


def hashed(data: bytes) -> str:
    """ "sha256:" and the hash in hex."""
    return f"sha256:{sha256(data).hexdigest()}"


def statement(keyset_digest: str, nonce: str | None) -> bytes:
    """The bytes that evidence speaks for. A nonce is 64 lowercase hex digits, or FormatError."""
    if nonce is not None and not _NONCE.fullmatch(nonce):
        raise FormatError(f"nonce: got {nonce[:80]!a}, want 64 lowercase hex digits")
    if not _DIGEST.fullmatch(keyset_digest):
        raise FormatError(f"keyset digest: got {keyset_digest[:80]!a}, want sha256:<64 hex>")
    value = {"keyset_digest": keyset_digest, "nonce": nonce, "purpose": PURPOSE}
    return json.dumps(value, separators=(",", ":")).encode()


def report_data(keyset_digest: str, nonce: str | None) -> bytes:
    """64 bytes."""
    return sha256(statement(keyset_digest, nonce)).digest() + bytes(32)


def sign(receipt: ACIReceipt, key: Ed25519PrivateKey) -> ACIReceipt:
    """The receipt with its signature."""
    return replace(receipt, signature=key.sign(receipt.signed_part).hex())


def verify(receipt: ACIReceipt, *, keyset: Keyset) -> None:
    """Raise VerifyError unless the receipt key of this keyset signed it, for this keyset and in its time."""
    if receipt.workload_keyset_digest != keyset.digest or receipt.key_id != keyset.receipt_key_id:
        raise VerifyError("aci receipt: it names another keyset, or another key of it")
    if receipt.served_at > keyset.not_after:
        raise VerifyError(
            f"aci receipt: served at {receipt.served_at}, and the keyset ended at {keyset.not_after}"
        )
    try:
        public = Ed25519PublicKey.from_public_bytes(keyset.receipt_key)
    except ValueError as error:
        raise FormatError("aci keyset: receipt key is not 32 bytes of ed25519") from error
    try:
        public.verify(bytes.fromhex(receipt.signature), receipt.signed_part)
    except (InvalidSignature, ValueError) as error:
        raise VerifyError("aci receipt: the signature does not match") from error


def _step(value: JSON) -> Step:
    if not isinstance(value, dict) or not {"type", "body_hash"} <= value.keys():
        raise FormatError("aci receipt.event_log: want objects with type and body_hash")
    more = {name: member for name, member in value.items() if name not in {"type", "body_hash"}}
    return Step(type=_text(value, "type"), body_hash=_text(value, "body_hash"), more=more)


def _text(value: Mapping[str, JSON], name: str) -> str:
    if not isinstance(text := value[name], str):
        raise FormatError(f"aci receipt.{name}: got {type(text).__name__}, want text")
    return text
