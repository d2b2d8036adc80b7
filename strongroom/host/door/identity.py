"""What a door shows of itself: a TLS key made here and never written anywhere, and the machine's evidence for it.

The certificate carries evidence of when it was made; fresh evidence for one connection is asked for each time. An
identity is renewed before it expires.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import StrongroomError
from strongroom.evidence.binding import Purpose, certificate_challenge, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.evidence import request_evidence
from strongroom.host.tls import ServerContext
from strongroom.ratls.certificate import build

LIFETIME: Final = timedelta(hours=24)
RENEW_AFTER: Final = LIFETIME * 2 / 3
RENEW_LOOK: Final = 60.0  # seconds between looks at the certificate's age, and attempts to renew it
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


async def make_tls_identity(
    *, evidence_socket: Path, names: Sequence[str], now: datetime, clients: Sequence[bytes] = ()
) -> TLSIdentity:
    """A fresh P-256 key and its certificate. Errors as of request_evidence().

    `clients` are the certificates (DER) that those who connect may show; none are asked for when there are none.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    not_before = whole_minute(now) - _BACKDATE
    bundle = await request_evidence(
        evidence_socket, purpose=Purpose.RA_TLS, challenge=certificate_challenge(not_before), key=spki
    )
    certificate = build(
        key=key,
        bundle=bundle.bare,  # a certificate is short; who connects asks for channel evidence, which brings the rest
        names=names,
        not_before=not_before,
        lifetime=LIFETIME,
        serial=1 + secrets.randbits(120),
    )
    context = ServerContext.of(key=key, certificate=certificate, clients=clients)
    return TLSIdentity(context=context, certificate=certificate, spki=spki, not_before=not_before)


async def keep_fresh(
    identity: TLSIdentity,
    *,
    evidence_socket: Path,
    names: Sequence[str],
    replace: Callable[[TLSIdentity], None],
    failed: Callable[[StrongroomError], None],
    clients: Sequence[bytes] = (),
) -> NoReturn:
    """Hand a successor to `replace` in time, for connections to come. Raises once one expired without a successor.

    Looks at the clock that clients go by: the one that sleep() goes by stands still while a machine is suspended.
    """
    while True:
        await asyncio.sleep(RENEW_LOOK)
        if identity.is_fresh(datetime.now(UTC)):
            continue
        try:
            identity = await make_tls_identity(
                evidence_socket=evidence_socket, names=names, now=datetime.now(UTC), clients=clients
            )
            replace(identity)
        except StrongroomError as error:
            failed(error)
            if datetime.now(UTC) >= identity.not_after:
                raise


async def channel_evidence(evidence_socket: Path, *, spki: bytes, nonce: bytes, exporter: bytes) -> Bundle:
    """Fresh evidence that speaks for one connection: the client's nonce, that TLS exporter, that key."""
    challenge = channel_challenge(nonce, exporter)
    return await request_evidence(evidence_socket, purpose=Purpose.CHANNEL, challenge=challenge, key=spki)


def whole_minute(now: datetime) -> datetime:
    """The minute `now` lies in, in UTC: evidence commits to no finer time."""
    return now.astimezone(UTC).replace(second=0, microsecond=0)
