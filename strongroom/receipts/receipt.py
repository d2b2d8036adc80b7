"""The receipt and its signature (docs/formats/receipt.md). Pure: the key and the time are arguments.

A receipt says: this engine, serving the sealed model with this root, in the machine this evidence describes,
got a request body with this hash and delivered a response body with that hash. The signature is Ed25519 over a
label and the receipt's canonical JSON, so one receipt has one encoding.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.eventlog import EventLog
from strongroom.wire.canonical import JSON, pack_json, parse_json

VERSION: Final = "strongroom/receipt/v1"
_LABEL: Final = b"strongroom/receipt/v1\0"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT: Final = 256  # characters
_MAX_INT: Final = 2**53  # canonical JSON holds no larger whole number


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str
    root: bytes  # SHA-256 of the sealed model's manifest
    epoch: int

    @classmethod
    def from_json(cls, value: JSON, subject: str) -> Self:
        raw = _members(value, subject, ("name", "root", "epoch"))
        return cls(
            name=_text(raw, "name", subject),
            root=_digest(raw, "root", subject),
            epoch=_whole(raw, "epoch", subject),
        )

    @classmethod
    def from_events(cls, events: EventLog) -> Self:
        """What the attested machine says it serves. Raises FormatError when the log has no such event."""
        return cls.from_json(_event(events, "model"), "event model")

    def to_json(self) -> JSON:
        return {"name": self.name, "root": self.root.hex(), "epoch": self.epoch}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    name: str
    version: str
    flags_sha256: bytes

    @classmethod
    def from_json(cls, value: JSON, subject: str) -> Self:
        raw = _members(value, subject, ("name", "version", "flags_sha256"))
        return cls(
            name=_text(raw, "name", subject),
            version=_text(raw, "version", subject),
            flags_sha256=_digest(raw, "flags_sha256", subject),
        )

    @classmethod
    def from_events(cls, events: EventLog) -> Self:
        """What the attested machine says it runs. Raises FormatError when the log has no such event."""
        event = _event(events, "engine")
        if not isinstance(event, dict):
            raise FormatError(f"event engine: got {type(event).__name__}, want an object")
        return cls.from_json({k: v for k, v in event.items() if k != "flags"}, "event engine")

    def to_json(self) -> JSON:
        return {"name": self.name, "version": self.version, "flags_sha256": self.flags_sha256.hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    id: str  # 32 hex digits, chosen by the door
    served_at: int  # unix seconds, when the last byte was delivered
    endpoint: str
    method: str
    model: Model
    engine: Engine
    request_sha256: bytes  # body exactly as received
    response_sha256: bytes  # body exactly as delivered
    complete: bool  # False when the answer was cut short, by whomever
    evidence_sha256: bytes  # digest of the evidence bundle that speaks for the signing key

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise FormatError(f"receipt: id is {len(self.id)} characters, want 32 hex digits")

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        raw = _members(value, "receipt", _KEYS)
        if raw["version"] != VERSION:
            raise FormatError(f"receipt: version is {str(raw['version'])[:64]!r}, want {VERSION!r}")
        complete = raw["complete"]
        if not isinstance(complete, bool):
            raise FormatError(f"receipt: complete is {type(complete).__name__}, want true or false")
        return cls(
            id=_text(raw, "id", "receipt"),
            served_at=_whole(raw, "served_at", "receipt"),
            endpoint=_text(raw, "endpoint", "receipt"),
            method=_text(raw, "method", "receipt"),
            model=Model.from_json(raw["model"], "receipt.model"),
            engine=Engine.from_json(raw["engine"], "receipt.engine"),
            request_sha256=_digest(raw, "request_sha256", "receipt"),
            response_sha256=_digest(raw, "response_sha256", "receipt"),
            complete=complete,
            evidence_sha256=_digest(raw, "evidence_sha256", "receipt"),
        )

    def to_json(self) -> JSON:
        return {
            "version": VERSION,
            "id": self.id,
            "served_at": self.served_at,
            "endpoint": self.endpoint,
            "method": self.method,
            "model": self.model.to_json(),
            "engine": self.engine.to_json(),
            "request_sha256": self.request_sha256.hex(),
            "response_sha256": self.response_sha256.hex(),
            "complete": self.complete,
            "evidence_sha256": self.evidence_sha256.hex(),
        }

    def require_bodies(self, *, request_sha256: bytes, response_sha256: bytes) -> None:
        """Raise VerifyError unless these are the hashes of the bodies this receipt speaks for."""
        for name, found, wanted in (
            ("request", request_sha256, self.request_sha256),
            ("response", response_sha256, self.response_sha256),
        ):
            if found != wanted:
                raise VerifyError(f"receipt: {name} body hashes to {found.hex()}, want {wanted.hex()}")


_KEYS: Final = (
    "version", "id", "served_at", "endpoint", "method", "model", "engine",
    "request_sha256", "response_sha256", "complete", "evidence_sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    receipt: Receipt
    signature: bytes  # 64 bytes
    key: bytes  # DER SPKI of the Ed25519 key that made it


def sign(receipt: Receipt, key: Ed25519PrivateKey) -> SignedReceipt:
    """The receipt with its Ed25519 signature."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SignedReceipt(receipt=receipt, signature=key.sign(_message(receipt)), key=spki)


def verify(signed: SignedReceipt, *, key: bytes) -> Receipt:
    """The receipt, once `key` (DER SPKI) is found to have signed it. Says nothing of whose key that is.

    Raises VerifyError for another key or a wrong signature, FormatError for a key that is not Ed25519.
    """
    if signed.key != key:
        raise VerifyError("receipt: signed by another key than the one the evidence speaks for")
    try:
        public = load_der_public_key(key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("receipt: key is not a DER public key") from error
    if not isinstance(public, Ed25519PublicKey):
        raise FormatError(f"receipt: key is {type(public).__name__}, want Ed25519")
    try:
        public.verify(signed.signature, _message(signed.receipt))
    except InvalidSignature as error:
        raise VerifyError("receipt: the signature does not match") from error
    return signed.receipt


def _message(receipt: Receipt) -> bytes:
    return _LABEL + pack_json(receipt.to_json())


def _event(events: EventLog, name: str) -> JSON:
    payload = events.find(name)
    if payload is None:
        raise FormatError(f"event log: no event {name}, want exactly one")
    return parse_json(payload, f"event {name}")


def _members(value: JSON, subject: str, keys: tuple[str, ...]) -> Mapping[str, JSON]:
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: got {type(value).__name__}, want an object")
    if wrong := sorted(value.keys() ^ set(keys)):
        found = "unknown" if wrong[0] in value else "missing"
        raise FormatError(f"{subject}: {wrong[0][:64]!r} is {found}")
    return value


def _text(raw: Mapping[str, JSON], key: str, subject: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise FormatError(f"{subject}.{key}: want 1..{_MAX_TEXT} printable characters")
    return value


def _digest(raw: Mapping[str, JSON], key: str, subject: str) -> bytes:
    value = raw[key]
    if not isinstance(value, str) or not _HEX32.fullmatch(value):
        raise FormatError(f"{subject}.{key}: want 64 lowercase hex digits")
    return bytes.fromhex(value)


def _whole(raw: Mapping[str, JSON], key: str, subject: str) -> int:
    value = raw[key]
    if type(value) is not int or not 0 <= value < _MAX_INT:  # bool is an int: type() on purpose
        raise FormatError(f"{subject}.{key}: want a whole number 0..2^53-1")
    return value
