"""One piece of collateral: a question to a vendor, and an answer that can be checked on its own.

An item is the question, such as "the certificate of this chip at these patch levels". Its parts are the answer as
it came: enough to say, with the pins of strongroom.verify.roots and nothing else, who signed it and how long it
holds. Only what is signed decides; not a file's date, nor the server an answer came from.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Protocol, Self, TypeAlias

from strongroom.errors import FormatError
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON, pack_json

MAX_ANSWER: Final = 256 << 10  # bytes of one answer of a vendor

Subject: TypeAlias = dict[str, JSON]
Parts: TypeAlias = Mapping[str, bytes]


class Vendor(StrEnum):
    """One service each; the value is its name on the command line."""

    AMD_KDS = "amd-kds"  # key distribution: chip certificates, their issuers, revocation lists
    INTEL_PCS = "intel-pcs"  # provisioning certification: TCB info, QE identity, PCK revocation lists
    INTEL_ROOT = "intel-root"  # the revocation list of the root
    NVIDIA_RIM = "nvidia-rim"  # reference values
    NVIDIA_OCSP = "nvidia-ocsp"  # revocation of device certificates, and of signers of reference values


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What the signatures over an answer say of it. Only an item's `examine` makes these."""

    issued: datetime
    until: datetime  # the first moment any part of it is out of date
    renew_after: timedelta | None  # how long after `issued` there may be news; None: not before `until`
    rank: tuple[int, ...]  # grows with every newer issue, in every place
    simulated: bool

    def is_due(self, now: datetime) -> bool:
        """Whether it is time to ask for a newer one, long before this one is out of date."""
        if self.renew_after is None:
            return now >= self.until
        return now >= min(self.issued + self.renew_after, self.issued + (self.until - self.issued) / 2)

    def is_older_than(self, other: "Signed") -> bool:
        """Whether any part of this was issued before the same part of `other`."""
        return any(mine < theirs for mine, theirs in zip(self.rank, other.rank, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    vendor: Vendor
    path: str
    body: bytes | None = None  # there is one: POST
    content_type: str = "application/octet-stream"  # of the body
    accept: str = "*/*"
    max_bytes: int = MAX_ANSWER


@dataclass(frozen=True, slots=True)
class Answer:
    """Of status 200, as it came."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # names in lower case


Ask: TypeAlias = Callable[[Request], Awaitable[Answer]]
"""How a request gets its answer; whoever fetches nothing needs none."""


class Item(Protocol):
    """A question to a vendor. Frozen, and equal to another that asks the same."""

    @property
    def kind(self) -> str: ...

    @property
    def title(self) -> str:
        """The question in words, without the whole identity of a machine."""
        ...

    def subject(self) -> Subject: ...

    @classmethod
    def from_subject(cls, subject: Subject) -> Self:
        """Raises FormatError for a subject this kind does not have."""
        ...

    async def fetch(self, ask: Ask) -> Parts:
        """The answer, as it came and unchecked."""
        ...

    def examine(self, parts: Parts, *, roots: Roots, now: datetime) -> Signed:
        """What is signed; VerifyError or FormatError when it is not genuine, not valid now, or answers another."""
        ...


def name_of(item: Item) -> str:
    """The item's name in a cache: SHA-256 of its question, in hex."""
    return sha256(pack_json({"kind": item.kind, "subject": item.subject()})).hexdigest()


def text(subject: Subject, key: str, kind: str) -> str:
    """A string of a subject, whose keys are known to be right."""
    value = subject[key]
    if not isinstance(value, str):
        raise FormatError(f"{kind}.{key}: not text")
    return value


def check_keys(found: Mapping[str, object], wanted: set[str], what: str) -> None:
    """FormatError unless exactly the wanted keys are there."""
    if found.keys() != wanted:
        have = ascii(", ".join(sorted(found))[:200]) if found else "none"
        raise FormatError(f"{what}: has {have}, want {', '.join(sorted(wanted))}")
