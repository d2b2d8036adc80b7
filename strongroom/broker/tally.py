"""Which refusals have a line of the audit log of their own, and how the others are told: in bounded space.

Nobody has to be let in to be refused, so whoever likes could fill the log. Every network has a few lines at once and
then one now and then, all networks together have some more; what is beyond is counted by network, and told as one line
for each of those that asked most, and one for the rest. Nothing that was given to somebody is ever counted away.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from strongroom.broker.audit import Audit, Outcome
from strongroom.broker.rate import Buckets, Rate, network_of
from strongroom.wire.line import sentence

MAX_NETWORKS: Final = 1024  # that are counted apart
MAX_TOLD: Final = 8  # in lines of their own
_EVERYBODY: Final = "all"
_OTHERS: Final = "others"
_LAST: Final = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Lines of their own: for one network, and for all of them."""

    network: Rate
    everybody: Rate


STRANGER: Final = Allowance(network=Rate(per_second=0.1, burst=20), everybody=Rate(per_second=0.5, burst=400))
GUEST: Final = Allowance(network=Rate(per_second=0.2, burst=50), everybody=Rate(per_second=1.0, burst=800))
ALLOWANCES: Final[Mapping[Outcome, Allowance]] = MappingProxyType(
    {  # strangers cannot use up what is there for machines that are genuine
        Outcome.TURNED_AWAY: STRANGER,
        Outcome.FORBIDDEN: STRANGER,
        Outcome.REFUSED: STRANGER,
        Outcome.DENIED: GUEST,
    }
)


@dataclass(slots=True)
class _Counted:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    last: str = ""

    def add(self, audit: Audit) -> None:
        self.outcomes[audit.outcome] += 1
        self.last = audit.rule

    def told(self) -> str:
        parts = ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(self.outcomes.items()))
        return f"{parts}; last: {sentence(self.last, most=_LAST)}"


class Tally:
    """The refusals of one broker since the last summary."""

    def __init__(self, allowances: Mapping[Outcome, Allowance] = ALLOWANCES) -> None:
        self._allowances = allowances
        self._networks = {one: Buckets(one.network) for one in allowances.values()}
        self._everybody = {one: Buckets(one.everybody, max_addresses=1) for one in allowances.values()}
        self._counted: dict[str, _Counted] = {}
        self._since: datetime | None = None

    def told_apart(self, audit: Audit) -> bool:
        """Whether this has a line of its own; otherwise it is counted, and in the next summary."""
        allowance = self._allowances.get(audit.outcome)
        if allowance is None:
            return True
        of_network, of_all = self._networks[allowance], self._everybody[allowance]
        if of_network.take(audit.peer, audit.time) and of_all.take(_EVERYBODY, audit.time):
            return True
        network = network_of(audit.peer)
        if network not in self._counted and len(self._counted) >= MAX_NETWORKS:
            network = _OTHERS
        self._counted.setdefault(network, _Counted()).add(audit)
        self._since = self._since or audit.time
        return False

    def summary(self, now: datetime) -> list[Audit]:
        """Lines for everything that was counted, which begins anew."""
        counted, since = self._counted, self._since or now
        self._counted, self._since = {}, None
        seconds = max(1, round((now - since).total_seconds()))
        most = sorted(counted, key=lambda name: (name == _OTHERS, -counted[name].outcomes.total()))
        told, rest = most[:MAX_TOLD], most[MAX_TOLD:]
        lines = [_line(now, name, counted[name], f"in {seconds} s") for name in told]
        if rest:
            together = _Counted()
            for name in rest:
                together.outcomes += counted[name].outcomes
                together.last = counted[name].last
            lines.append(_line(now, _OTHERS, together, f"of {len(rest)} networks in {seconds} s"))
        return lines


def _line(now: datetime, peer: str, counted: _Counted, when: str) -> Audit:
    rule = f"{counted.outcomes.total()} more refusals {when}: {counted.told()}"
    return Audit(time=now, peer=peer, outcome=Outcome.TURNED_AWAY, rule=rule)
