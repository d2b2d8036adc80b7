"""Tables for people and one object for programs. Targets are shown beside what was measured; nothing is judged by them
but a word."""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bench.fs.names import EITHER, NEWEST, NEWEST_RAISED, OURS, PLAIN
from bench.fs.stage import Stage
from bench.fs.trial import Figure, Measured, Round
from strongroom.cli.terminal import table

_QUANTITIES: Final[dict[str, Callable[[Round], float]]] = {
    "speed": lambda done: done.amount / done.seconds,
    "time": lambda done: done.seconds / done.amount,
    "daemon CPU": lambda done: max(done.daemon / done.amount, 1e-15),
}
FLOOR: Final = 0.9  # of either gocryptfs, in every operation, where nothing higher is wanted


@dataclass(frozen=True, slots=True)
class Target:
    """What `subject` is wanted to reach over `over` in one operation: at least in speed, at most in what it costs."""

    operation: str
    subject: str
    over: str
    bound: float
    quantity: Literal["speed", "time", "daemon CPU"] = "speed"


@dataclass(frozen=True, slots=True)
class Ratio:
    """`value` is of the medians; `low` and `high` are the extremes of rounds measured side by side."""

    target: Target
    value: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        if self.target.quantity == "speed":
            return self.value >= self.target.bound
        return self.value <= self.target.bound

    def row(self) -> tuple[str, ...]:
        speed = self.target.quantity == "speed"
        return (
            self.target.operation + ("" if speed else f" ({self.target.quantity})"),
            f"{self.target.subject} / {self.target.over}",
            f"{self.value:.2f}",
            f"{self.low:.2f}..{self.high:.2f}",
            f"{'at least' if speed else 'at most'} {self.target.bound:g}",
            "met" if self.met else "MISSED",
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "operation": self.target.operation,
            "subject": self.target.subject,
            "over": self.target.over,
            "quantity": self.target.quantity,
            "ratio": round(self.value, 3),
            "low": round(self.low, 3),
            "high": round(self.high, 3),
            "target": self.target.bound,
            "met": self.met,
        }


@dataclass(slots=True)
class Part:
    """What one part measured. `scale` turns an amount a second into `unit`."""

    name: str
    title: str
    measured: list[Measured] = field(default_factory=list)
    targets: Sequence[Target] = ()
    unit: str = "MB/s"
    scale: float = 1e-6
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def tell(self, stage: Stage) -> None:
        """Keep which versions were measured, and what could not be had."""
        self.extra |= {"versions": stage.versions, "not_there": stage.absent}
        if stage.versions:
            self.notes.append(", ".join(f"{name} is {version}" for name, version in stage.versions.items()))

    def ratios(self) -> list[Ratio]:
        """Every target whose two sides were measured, and the floor for every other pair of ours and gocryptfs."""
        found: dict[tuple[str, ...], Ratio] = {}
        by_name = {measured.operation: measured.figures for measured in self.measured}
        for target in (*self.targets, *self._floors()):
            figures = by_name.get(target.operation, {})
            key = (target.operation, target.subject, target.over, target.quantity)
            if target.subject in figures and target.over in figures and key not in found:
                found[key] = _compare(target, figures[target.subject], figures[target.over])
        return list(found.values())

    @property
    def others(self) -> float:
        """Processors that were busy with other work while the rounds ran: what it took, by the time they took."""
        rounds = [
            done
            for measured in self.measured
            for figure in measured.figures.values()
            for done in figure.rounds
            if done.reader
        ]
        return sum(done.others for done in rounds) / sum(done.seconds for done in rounds) if rounds else 0.0

    def text(self) -> str:
        blocks = [f"== {self.name}: {self.title}"]
        blocks += [
            f"-- {measured.operation}\n{self._table(measured)}"
            for measured in self.measured
            if measured.figures
        ]
        if rows := [ratio.row() for ratio in self.ratios()]:
            blocks.append(table([("operation", "ratio", "is", "rounds", "wanted", ""), *rows], widest=72))
        blocks += self.notes
        if self.measured:
            blocks.append(f"{self.others:.2f} processors of {os.cpu_count()} did other work meanwhile")
        return "\n\n".join(blocks)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "others": round(self.others, 3),
            "figures": {
                measured.operation: {name: self._figure(figure) for name, figure in measured.figures.items()}
                for measured in self.measured
            },
            "absent": {measured.operation: measured.absent for measured in self.measured if measured.absent},
            "ratios": [ratio.to_json() for ratio in self.ratios()],
            **self.extra,
        }

    def _floors(self) -> Iterator[Target]:
        for measured in self.measured:
            for subject in OURS:
                yield from (Target(measured.operation, subject, over, FLOOR) for over in EITHER)

    def _table(self, measured: Measured) -> str:
        header = (
            "",
            self.unit,
            "slowest",
            "fastest",
            "reader",
            "daemon",
            "/ plain",
            "/ newest",
            "/ newest ra8M",
        )
        rows = []
        for name, figure in measured.figures.items():
            shares = [
                f"{_ratio(figure, measured.figures[over]):.2f}" if over in measured.figures else "-"
                for over in (PLAIN, NEWEST, NEWEST_RAISED)
            ]
            speeds = [f"{value * self.scale:.0f}" for value in (figure.speed, figure.slowest, figure.fastest)]
            rows.append((name, *speeds, self._cpu(figure.reader), self._cpu(figure.daemon), *shares))
        return table([header, *rows])

    def _cpu(self, seconds: float) -> str:
        """Processor seconds: of a gigabyte, or milliseconds of a thousand files."""
        return f"{seconds:.2f}" if self.scale == 1e-6 else f"{seconds * 1e-3:.0f}"

    def _figure(self, figure: Figure) -> dict[str, Any]:
        return {
            "median": round(figure.speed * self.scale, 3),
            "slowest": round(figure.slowest * self.scale, 3),
            "fastest": round(figure.fastest * self.scale, 3),
            "seconds": round(figure.seconds, 4),
            "reader_cpu": round(figure.reader, 4),
            "daemon_cpu": round(figure.daemon, 4),
            "rounds": len(figure.rounds),
        }


def _ratio(subject: Figure, over: Figure) -> float:
    return subject.speed / over.speed


def _compare(target: Target, subject: Figure, over: Figure) -> Ratio:
    of = _QUANTITIES[target.quantity]
    mine, others = ([of(done) for done in figure.rounds] for figure in (subject, over))
    beside = [one / other for one, other in zip(mine, others, strict=True)]
    return Ratio(target, statistics.median(mine) / statistics.median(others), min(beside), max(beside))
