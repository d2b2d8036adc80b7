"""Named reference values, each accepted on some days: an upgrade accepts old and new for a while."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, TypedDict, TypeVar

from strongroom.appraise.raw import Raw
from strongroom.appraise.result import Aspect, Result, any_of

KEYS: Final = frozenset({"name", "from", "until"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A name, and the days (UTC, both included) on which what it names is accepted."""

    name: str
    first_day: date | None = None
    last_day: date | None = None

    def holds_on(self, day: date) -> bool:
        started = self.first_day is None or self.first_day <= day
        return started and (self.last_day is None or day <= self.last_day)


class Window(TypedDict):
    """The arguments that every Named takes."""

    name: str
    first_day: date | None
    last_day: date | None


NamedT = TypeVar("NamedT", bound=Named)


def window(members: Mapping[str, Raw]) -> Window:
    """What the KEYS among `members` say; "name" must be one of them."""
    return {
        "name": members["name"].text(),
        "first_day": members["from"].day() if "from" in members else None,
        "last_day": members["until"].day() if "until" in members else None,
    }


def holding(references: Sequence[NamedT], moment: datetime) -> tuple[NamedT, ...]:
    """Those accepted at `moment` (with a zone)."""
    day = moment.astimezone(UTC).date()
    return tuple(reference for reference in references if reference.holds_on(day))


def matched(
    check: str, found: str, matches: Sequence[Named], references: Sequence[Named], now: datetime
) -> Result:
    """Whether one of `matches`, the references that fit what was found, is accepted at `now`."""
    if accepted := holding(matches, now):
        return Result(check, True, found, accepted[0].name, Aspect.EXECUTABLES)
    if matches:
        outside = f"{matches[0].name} outside its days"
        return Result(check, False, outside, "one accepted today", Aspect.EXECUTABLES)
    wanted = any_of(reference.name for reference in holding(references, now))
    return Result(check, False, found, wanted, Aspect.EXECUTABLES)
