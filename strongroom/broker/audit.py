"""One line of canonical JSON for every decision of the broker. What it is about, never what it gave."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI
from strongroom.wire.canonical import pack_json


class Outcome(StrEnum):
    ATTESTED = "attested"
    REFUSED = "refused"  # the evidence is not genuine, or not for this session
    RELEASED = "released"
    DENIED = "denied"  # genuine, but not what the resource's policy wants


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    time: datetime
    peer: str
    outcome: Outcome
    rule: str  # the policy that released, or every reason it did not
    resource: ResourceURI | None = None
    proof: Proof | None = None

    def line(self) -> str:
        """Canonical JSON, so no text of a peer can pass for a line or a member of ours."""
        members = {
            "time": self.time.astimezone(UTC).isoformat(timespec="milliseconds"),
            "peer": self.peer,
            "resource": None if self.resource is None else str(self.resource),
            "evidence_sha256": None if self.proof is None else self.proof.sha256.hex(),
            "verdict": self.outcome.value,
            "rule": self.rule,
        }
        return pack_json({**members}).decode()
