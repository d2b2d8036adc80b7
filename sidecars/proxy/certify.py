"""The door's two keys, made here and never written anywhere, each with the machine's evidence for it.

The TLS key proves the connection, the receipt key signs answers. The TLS identity is renewed before it expires; the
receipt key lives as long as the process.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecars.proxy.plan import Plan
from strongroom.errors import ConfigError
from strongroom.evidence.binding import Purpose, certificate_challenge, channel_challenge, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.evidence import request_evidence
from strongroom.host.tls import ServerContext
from strongroom.ratls.certificate import build
from strongroom.receipts.receipt import Engine, Model

LIFETIME: Final = timedelta(hours=24)
RENEW_AFTER: Final = LIFETIME * 2 / 3
_BACKDATE: Final = timedelta(minutes=1)  # for clients whose clock is behind


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSIdentity:
    context: ServerContext = field(repr=False)
    certificate: bytes = field(repr=False)  # DER
    spki: bytes  # DER
    not_before: datetime

    @property
    def not_after(self) -> datetime:
        return self.not_before + LIFETIME

    def is_fresh(self, now: datetime) -> bool:
        """Whether it needs no successor yet. It does when the clock was set back, or passed much time in a leap."""
        return self.not_before <= now < self.not_before + RENEW_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptIdentity:
    key: Ed25519PrivateKey = field(repr=False)
    spki: bytes  # DER
    not_before: datetime
    evidence: Bundle = field(repr=False)


async def make_tls_identity(plan: Plan, *, now: datetime) -> TLSIdentity:
    """A fresh P-256 key and its certificate. Errors as of request_evidence()."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    not_before = _minute(now) - _BACKDATE
    bundle = await request_evidence(
        plan.evidence_socket, purpose=Purpose.RA_TLS, challenge=certificate_challenge(not_before), key=spki
    )
    certificate = build(
        key=key,
        bundle=bundle.bare,  # a certificate is short; who connects asks for channel evidence, which brings the rest
        names=plan.names,
        not_before=not_before,
        lifetime=LIFETIME,
        serial=1 + secrets.randbits(120),
    )
    context = ServerContext.of(key=key, certificate=certificate)
    return TLSIdentity(context=context, certificate=certificate, spki=spki, not_before=not_before)


async def make_receipt_identity(plan: Plan, *, now: datetime) -> ReceiptIdentity:
    """A fresh Ed25519 key with evidence. Raises ConfigError when the evidence names another model or engine."""
    key = Ed25519PrivateKey.generate()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    not_before = _minute(now)
    bundle = await request_evidence(
        plan.evidence_socket, purpose=Purpose.RECEIPT_KEY, challenge=receipt_challenge(not_before), key=spki
    )
    if Model.from_events(bundle.events) != plan.model:
        raise ConfigError("door.model: the machine's evidence names another model")
    if Engine.from_events(bundle.events) != plan.engine:
        raise ConfigError("door.engine: the machine's evidence names another engine")
    return ReceiptIdentity(key=key, spki=spki, not_before=not_before, evidence=bundle)


async def channel_evidence(plan: Plan, *, spki: bytes, nonce: bytes, exporter: bytes) -> Bundle:
    """Fresh evidence that speaks for one connection: the client's nonce, that TLS exporter, that key."""
    challenge = channel_challenge(nonce, exporter)
    return await request_evidence(
        plan.evidence_socket, purpose=Purpose.CHANNEL, challenge=challenge, key=spki
    )


def _minute(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(second=0, microsecond=0)
