"""The door's second key, which signs answers: made here, never written anywhere, with the machine's evidence for it.

The first one, which proves the connection, is every door's (strongroom/host/door/identity.py). This one lives as long
as the process.
"""

from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecars.proxy.plan import Plan
from strongroom.errors import ConfigError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.door.identity import whole_minute
from strongroom.host.evidence import request_evidence
from strongroom.receipts.receipt import Engine, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptIdentity:
    key: Ed25519PrivateKey = field(repr=False)
    spki: bytes  # DER
    not_before: datetime
    evidence: Bundle = field(repr=False)


async def make_receipt_identity(plan: Plan, *, now: datetime) -> ReceiptIdentity:
    """A fresh Ed25519 key with evidence. Raises ConfigError when the evidence names another model or engine."""
    key = Ed25519PrivateKey.generate()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    not_before = whole_minute(now)
    bundle = await request_evidence(
        plan.evidence_socket, purpose=Purpose.RECEIPT_KEY, challenge=receipt_challenge(not_before), key=spki
    )
    if Model.from_events(bundle.events) != plan.model:
        raise ConfigError("door.model: the machine's evidence names another model")
    if Engine.from_events(bundle.events) != plan.engine:
        raise ConfigError("door.engine: the machine's evidence names another engine")
    return ReceiptIdentity(key=key, spki=spki, not_before=not_before, evidence=bundle)
