"""Tables for people and one object for programs. Targets stand beside what was measured, and judge by a word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.ingress.cases import Measured
from bench.ingress.subjects import HAPROXY, OURS, PYTHON
from strongroom.cli.terminal import table


@dataclass(frozen=True, slots=True)
class Target:
    """What our CPU for one is wanted to be at most: in microseconds, or as a multiple of another's."""

    case: str
    most: float
    over: str = ""


TARGETS: Final = (
    Target("16 clients ask", 40.0),
    Target("16 clients ask", 2.0, HAPROXY),
    Target("16 clients ask", 1 / 3.5, PYTHON),
    Target("16 streams", 18.0),
    Target("64 streams", 18.0),
)


@dataclass(frozen=True, slots=True)
class Judged:
    target: Target
    value: float

    @property
    def met(self) -> bool:
        return self.value <= self.target.most

    def row(self) -> tuple[str, ...]:
        what = f"{OURS} / {self.target.over}" if self.target.over else f"{OURS}, us of CPU"
        wanted, word = f"at most {self.target.most:.2f}", "met" if self.met else "MISSED"
        return self.target.case, what, f"{self.value:.2f}", wanted, word

    def to_json(self) -> dict[str, Any]:
        target = self.target
        return {
            "case": target.case,
            "over": target.over or None,
            "value": round(self.value, 3),
            "target": round(target.most, 3),
            "met": self.met,
        }


def judged(measured: Sequence[Measured]) -> Iterator[Judged]:
    """Every target whose sides were measured."""
    by_case = {one.case.name: one for one in measured}
    for target in TARGETS:
        one = by_case.get(target.case)
        if one is None or OURS not in one.rounds or (target.over and target.over not in one.rounds):
            continue
        value = one.cpu(OURS) / one.cpu(target.over) if target.over else one.cpu(OURS)
        yield Judged(target, value)


def text(measured: Sequence[Measured], notes: Sequence[str]) -> str:
    blocks = [f"-- {one.case.name}: microseconds for each {_unit(one)}\n{_table(one)}" for one in measured]
    if rows := [found.row() for found in judged(measured)]:
        blocks.append(table([("case", "what", "is", "wanted", ""), *rows]))
    return "\n\n".join([*blocks, *notes])


def to_json(measured: Sequence[Measured]) -> dict[str, Any]:
    return {
        "bench": "ingress",
        "cases": {one.case.name: one.to_json() for one in measured},
        "absent": {one.case.name: one.absent for one in measured if one.absent},
        "targets": [found.to_json() for found in judged(measured)],
    }


def _unit(one: Measured) -> str:
    return "token" if one.case.streams else "request"


def _table(one: Measured) -> str:
    rows = [
        (name, *(f"{figure[key]:g}" for key in ("cpu_us", "lowest", "highest", "p50_us", "p99_us", "count")))
        for name, figure in one.to_json().items()
    ]
    return table([("", "CPU", "lowest", "highest", "p50", "p99", "in all"), *rows])
