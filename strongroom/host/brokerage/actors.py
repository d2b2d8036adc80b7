"""Who does something to a broker: somebody on its machine, or an administrator whose key it knows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from strongroom.broker.audit import Audit, Outcome
from strongroom.broker.signed import SignedRequest
from strongroom.errors import PolicyError, VerifyError
from strongroom.host.brokerage.house import House
from strongroom.wire.canonical import b64u
from strongroom.wire.line import sentence

ADMINISTRATOR: Final = "administrator"
AUDITOR: Final = "auditor"
ROLES: Final = (ADMINISTRATOR, AUDITOR)
_KEPT: Final = 180  # seconds that the nonce of a request is remembered: more than it could be valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does it, and when."""

    name: str  # as the audit log has it
    now: datetime
    role: str = ADMINISTRATOR
    request: SignedRequest | None = None  # that says so; None on this machine

    def audit(self, what: str) -> Audit:
        return Audit(time=self.now, peer=self.name, outcome=Outcome.ADMINISTERED, rule=sentence(what))


def recognise(house: House, request: SignedRequest, now: datetime) -> Actor:
    """Who signed a request. VerifyError unless it is valid; PolicyError for a key nobody was given a role for."""
    request.verify(now)
    known = house.rules().administrators.get(request.key)
    if known is None:
        raise PolicyError(f"admin request: key {b64u(request.key)} is not an administrator's here")
    return Actor(name=f"{known.role} {known.name}", now=now, role=known.role, request=request)


def once(house: House, request: SignedRequest, now: datetime) -> None:
    """VerifyError for a request that came before, whatever became of it."""
    seconds, known = int(now.timestamp()), request.key + request.nonce
    with house.database.transaction() as connection:
        connection.execute("DELETE FROM nonce WHERE expires < ?", (seconds,))
        if connection.execute("SELECT 1 FROM nonce WHERE nonce = ?", (known,)).fetchone():
            raise VerifyError("admin request: replayed, this one came before")
        connection.execute("INSERT INTO nonce VALUES (?, ?)", (known, seconds + _KEPT))
