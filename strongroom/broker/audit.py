"""One line of canonical JSON for every decision of the broker, each holding the digest of the line before it.

    head 0      32 zero bytes
    line n      {..., "n": n, "previous": hex of head n-1}
    head n      SHA-256("strongroom/audit/v1" || 00 || line n)

A line that was removed, edited or moved breaks the chain there. A chain that was cut short, or written anew from
some line on, is known only by a head that was kept elsewhere. What a line is about is in it, never what was given.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, Self

from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI
from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import JSON, pack_json, parse_json
from strongroom.wire.line import sentence

MAX_LINE: Final = 16 << 10  # bytes
MAX_WHY: Final = 160  # characters, of somebody who was turned away
_LABEL: Final = b"strongroom/audit/v1\0"
_HEAD: Final = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-f]{64})", re.ASCII)
_MEMBERS: Final = frozenset(
    {"evidence_sha256", "n", "peer", "previous", "resource", "rule", "time", "verdict", "version"}
)


class Outcome(StrEnum):
    ATTESTED = "attested"
    REFUSED = "refused"  # the evidence is not genuine, or not for this session
    RELEASED = "released"
    DENIED = "denied"  # genuine, but not what the resource's policy wants
    ADMINISTERED = "administered"  # something here was changed, or read out, by whoever may
    FORBIDDEN = "forbidden"  # an administrator's request that was not one
    TURNED_AWAY = "turned-away"  # before there was evidence, or a resource, to judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One decision: about whom, on what evidence, by which rule, how."""

    time: datetime
    peer: str
    outcome: Outcome
    rule: str  # the policy that released, or every reason it did not; what an administrator did
    resource: ResourceURI | None = None
    version: int | None = None  # of the resource
    proof: Proof | None = None

    def line(self, after: "Head") -> bytes:
        """Canonical JSON, so no text of a peer can pass for a line or a member of ours."""
        members: dict[str, JSON] = {
            "time": self.time.astimezone(UTC).isoformat(timespec="milliseconds"),
            "peer": self.peer,
            "resource": None if self.resource is None else str(self.resource),
            "version": self.version,
            "evidence_sha256": None if self.proof is None else self.proof.sha256.hex(),
            "verdict": self.outcome.value,
            "rule": self.rule,
            "n": after.number + 1,
            "previous": after.digest.hex(),
        }
        return pack_json(members)


def turned_away(peer: str, now: datetime, why: str, uri: ResourceURI | None = None) -> Audit:
    """What is said of a caller who showed nothing that could be judged. Some of the words may be its own."""
    return Audit(
        time=now, peer=peer, outcome=Outcome.TURNED_AWAY, rule=sentence(why, most=MAX_WHY), resource=uri
    )


@dataclass(frozen=True, slots=True)
class Head:
    """How many lines there are, and the digest that stands for all of them. str() is NUMBER:HEX."""

    number: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _HEAD.fullmatch(text)
        if match is None:
            raise FormatError(f"audit head: got {text[:100]!r}, want NUMBER:64 hex digits")
        return cls(int(match[1]), bytes.fromhex(match[2]))

    def followed_by(self, line: bytes) -> "Head":
        """The head after one more line. VerifyError unless `line` was written as the next one."""
        where = f"audit line {self.number + 1}"
        try:
            value = parse_json(line, "json", max_bytes=MAX_LINE)
            canonical = pack_json(value)
        except FormatError as error:
            raise VerifyError(f"{where}: not as we write one: {error}") from None
        if not isinstance(value, dict) or value.keys() != _MEMBERS or canonical != line:
            raise VerifyError(f"{where}: not a canonical audit line, it was edited")
        if value["n"] != self.number + 1:
            found = str(value["n"])[:40]
            raise VerifyError(f"{where}: its number is {found}, a line was removed or moved")
        if value["previous"] != self.digest.hex():
            raise VerifyError(
                f"{where}: it does not follow the line before it, one of the two was edited or replaced"
            )
        return self.next(line)

    def next(self, line: bytes) -> "Head":
        """The head after a line of our own making."""
        return Head(self.number + 1, sha256(_LABEL + line).digest())

    def __str__(self) -> str:
        return f"{self.number}:{self.digest.hex()}"


START: Final = Head(0, bytes(32))


def verify_chain(lines: Iterable[bytes], *, kept: Iterable[Head] = (), subject: str = "audit") -> Head:
    """The head of all `lines`. VerifyError at the first line that is not the next one, or for a head in `kept`
    that this chain never had.
    """
    wanted: dict[int, bytes] = {}
    for head in kept:
        if wanted.setdefault(head.number, head.digest) != head.digest:
            raise VerifyError(f"{subject}: two different heads were kept for line {head.number}")
    at = START
    _compare(at, wanted)
    for line in lines:
        at = at.followed_by(line)
        _compare(at, wanted)
    if wanted and max(wanted) > at.number:
        raise VerifyError(
            f"{subject}: ends with line {at.number}, want at least {max(wanted)}: its last lines were removed"
        )
    return at


def _compare(at: Head, wanted: dict[int, bytes]) -> None:
    if wanted.get(at.number, at.digest) != at.digest:
        raise VerifyError(
            f"audit line {at.number}: the head here is {at.digest.hex()}, want the one that was kept: "
            "this line or one before it was written anew"
        )
