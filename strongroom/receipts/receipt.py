"""The receipt and its signature (docs/formats/receipt.md). Pure: the key and the time are arguments.

A receipt says: this engine, serving the sealed model with this root, in the machine this evidence describes,
got a request body with this hash and delivered a response body with that hash. The signature is over a label and
the receipt's canonical JSON, so one receipt has one encoding.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.eventlog import EventLog
from strongroom.receipts import signing
from strongroom.receipts.hashing import BodyHash, StreamHash
from strongroom.receipts.signing import Signer
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

VERSION: Final = "strongroom/receipt/v2"
LABEL: Final = b"strongroom/receipt/v2\0"
CACHES: Final = ("request", "tenant", "user")  # who may have shared the engine's prefix cache
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
    stream: bool = False  # whether the response was a stream of events: its hash leaves comments out
    cache: str = "request"  # whose requests could share its prefix cache: one of CACHES

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise FormatError(f"receipt: id is {len(self.id)} characters, want 32 hex digits")
        if self.cache not in CACHES:
            raise FormatError(f"receipt: cache is {self.cache[:64]!r}, want one of {', '.join(CACHES)}")

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        raw = _members(value, "receipt", _KEYS)
        if raw["version"] != VERSION:
            raise FormatError(f"receipt: version is {str(raw['version'])[:64]!r}, want {VERSION!r}")
        return cls(
            id=_text(raw, "id", "receipt"),
            served_at=_whole(raw, "served_at", "receipt"),
            endpoint=_text(raw, "endpoint", "receipt"),
            method=_text(raw, "method", "receipt"),
            model=Model.from_json(raw["model"], "receipt.model"),
            engine=Engine.from_json(raw["engine"], "receipt.engine"),
            request_sha256=_digest(raw, "request_sha256", "receipt"),
            response_sha256=_digest(raw, "response_sha256", "receipt"),
            complete=_flag(raw, "complete"),
            evidence_sha256=_digest(raw, "evidence_sha256", "receipt"),
            stream=_flag(raw, "stream"),
            cache=_text(raw, "cache", "receipt"),
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
            "stream": self.stream,
            "cache": self.cache,
        }

    @property
    def signed_part(self) -> bytes:
        """What is signed, and what the log's leaf is the hash of."""
        return LABEL + pack_json(self.to_json())

    def body_hash(self) -> BodyHash:
        """What hashes the response as this receipt does."""
        return StreamHash() if self.stream else BodyHash()

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
    "request_sha256", "response_sha256", "complete", "evidence_sha256", "stream", "cache",
)  # fmt: skip


class Answered(Protocol):
    """What differs from one receipt of a service to the next."""

    @property
    def id(self) -> str: ...
    @property
    def served_at(self) -> int: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def complete(self) -> bool: ...
    @property
    def stream(self) -> bool: ...
    @property
    def cache(self) -> str: ...
    @property
    def request_sha256(self) -> bytes: ...
    @property
    def response_sha256(self) -> bytes: ...


class Letterhead:
    """Receipts for answers to POST by one service: what they have in common is packed once."""

    def __init__(self, *, model: Model, engine: Engine, evidence_sha256: bytes) -> None:
        self._model, self._engine, self._evidence_sha256 = model, engine, evidence_sha256
        self._beginnings: dict[tuple[str, bool, str], str] = {}
        self._service = f'"model":{pack_json(model.to_json()).decode()},"request_sha256":"'

    def receipt(self, answered: Answered) -> Receipt:
        return Receipt(
            id=answered.id,
            served_at=answered.served_at,
            endpoint=answered.endpoint,
            method="POST",
            model=self._model,
            engine=self._engine,
            request_sha256=answered.request_sha256,
            response_sha256=answered.response_sha256,
            complete=answered.complete,
            evidence_sha256=self._evidence_sha256,
            stream=answered.stream,
            cache=answered.cache,
        )

    def signed_part(self, a: Answered) -> bytes:
        """receipt(answered).signed_part, in a tenth of the time."""
        kind = a.cache, a.complete, a.endpoint
        if (beginning := self._beginnings.get(kind)) is None:
            beginning = self._beginnings[kind] = self._beginning(*kind)
        packed = (
            f'{beginning}{a.id}","method":"POST",{self._service}{a.request_sha256.hex()}","response_sha256":"'
            f'{a.response_sha256.hex()}","served_at":{a.served_at},"stream":{"true" if a.stream else "false"},'
            f'"version":"{VERSION}"}}'
        )
        return LABEL + packed.encode()

    def _beginning(self, cache: str, complete: bool, endpoint: str) -> str:
        shared = pack_json(
            {
                "cache": cache,
                "complete": complete,
                "endpoint": endpoint,
                "engine": self._engine.to_json(),
                "evidence_sha256": self._evidence_sha256.hex(),
            }
        ).decode()
        return f'{shared[:-1]},"id":"'


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    receipt: Receipt
    signature: bytes
    key: bytes  # that made it (strongroom/receipts/signing.py)

    @classmethod
    def from_json(cls, value: JSON, subject: str = "receipt") -> Self:
        """What a stream carries, not verified. Raises FormatError."""
        raw = _members(value, subject, ("receipt", "signature", "key"))
        return cls(
            receipt=Receipt.from_json(raw["receipt"]),
            signature=_base64(raw, "signature", subject),
            key=_base64(raw, "key", subject),
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "receipt": self.receipt.to_json(),
            "signature": b64u(self.signature),
            "key": b64u(self.key),
        }


def sign(receipt: Receipt, key: Ed25519PrivateKey | Signer) -> SignedReceipt:
    """The receipt with its signature."""
    signer = key if isinstance(key, Signer) else Signer(key)
    return SignedReceipt(receipt=receipt, signature=signer.sign(receipt.signed_part), key=signer.key)


def verify(signed: SignedReceipt, *, key: bytes) -> Receipt:
    """The receipt, once `key` is found to have signed it. Says nothing of whose key that is.

    Raises VerifyError for another key or a wrong signature, FormatError for a key of another form.
    """
    if signed.key != key:
        raise VerifyError("receipt: signed by another key than the one the evidence speaks for")
    signing.verify(key, signed.signature, signed.receipt.signed_part, subject="receipt")
    return signed.receipt


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


def _flag(raw: Mapping[str, JSON], key: str) -> bool:
    if not isinstance(value := raw[key], bool):
        raise FormatError(f"receipt: {key} is {type(value).__name__}, want true or false")
    return value


def _base64(raw: Mapping[str, JSON], key: str, subject: str) -> bytes:
    if not isinstance(text := raw[key], str):
        raise FormatError(f"{subject}: {key} is {type(text).__name__}, want base64url text")
    return unb64u(text, f"{subject}: {key}")
