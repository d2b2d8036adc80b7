"""A served exchange without a machine: the event log of a guest that serves a model, keys, and certificates."""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.silicon.mint import Silicon
from strongroom.evidence.binding import Purpose, certificate_challenge, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.ratls.certificate import build
from strongroom.receipts.receipt import Engine, Model, Receipt
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.silicon import bundle

NOW: Final = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
NOT_BEFORE: Final = datetime(2026, 11, 20, 11, 59, tzinfo=UTC)
MODEL: Final = Model(name="tiny", root=bytes([7]) * 32, epoch=3)
ENGINE: Final = Engine(name="vllm", version="0.32.0", flags_sha256=bytes([9]) * 32)


def events(model: Model = MODEL, engine: Engine = ENGINE) -> EventLog:
    flags: JSON = ["serve", "/model"]
    described = engine.to_json()
    assert isinstance(described, dict)
    return (
        EventLog()
        .extend(Event("userdata", bytes(32)))
        .extend(Event("model", pack_json(model.to_json())))
        .extend(Event("gpu", pack_json({"count": 0})))
        .extend(Event("engine", pack_json({**described, "flags": flags})))
    )


def spki(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tls_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate_bundle(
    chip: Silicon, key: ec.EllipticCurvePrivateKey, not_before: datetime = NOT_BEFORE
) -> Bundle:
    return bundle(
        chip,
        purpose=Purpose.RA_TLS,
        challenge=certificate_challenge(not_before),
        key=spki(key),
        events=events(),
    )


def certificate(
    key: ec.EllipticCurvePrivateKey, evidence: Bundle, *, not_before: datetime = NOT_BEFORE
) -> bytes:
    return build(
        key=key,
        bundle=evidence,
        names=["door.example", "127.0.0.1"],
        not_before=not_before,
        lifetime=timedelta(hours=24),
        serial=1,
    )


def receipt_bundle(chip: Silicon, key: Ed25519PrivateKey, log: EventLog | None = None) -> Bundle:
    return bundle(
        chip,
        purpose=Purpose.RECEIPT_KEY,
        challenge=receipt_challenge(NOT_BEFORE),
        key=spki(key),
        events=log or events(),
    )


def receipt(evidence: Bundle, *, served_at: int = int(NOW.timestamp()), complete: bool = True) -> Receipt:
    return Receipt(
        id="0123456789abcdef" * 2,
        served_at=served_at,
        endpoint="/v1/chat/completions",
        method="POST",
        model=MODEL,
        engine=ENGINE,
        request_sha256=bytes([1]) * 32,
        response_sha256=bytes([2]) * 32,
        complete=complete,
        evidence_sha256=evidence.digest,
    )
