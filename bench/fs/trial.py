"""Rounds in turns: A B C, then C B A. One figure is the median of its rounds."""

import mmap
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench.fs.daemon import machine_cpu
from bench.fs.mounts import Mounted, Subject, set_read_ahead
from strongroom.errors import StrongroomError

GIGA: Final = 1e9
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE; Linux 5.14


class Round(NamedTuple):
    """One round: how much was done (bytes, files), in how many seconds, at what processor seconds.

    `others` is what the rest of the machine used meanwhile; 0 where the reader's own is not known.
    """

    amount: int
    seconds: float
    reader: float
    daemon: float = 0.0
    others: float = 0.0


Work = Callable[[Mounted], Round]


@dataclass(frozen=True, slots=True)
class Figure:
    rounds: tuple[Round, ...]

    @property
    def speed(self) -> float:
        """Median amount a second."""
        return statistics.median(self._speeds())

    @property
    def slowest(self) -> float:
        return min(self._speeds())

    @property
    def fastest(self) -> float:
        return max(self._speeds())

    @property
    def seconds(self) -> float:
        return statistics.median(done.seconds for done in self.rounds)

    @property
    def reader(self) -> float:
        """Median processor seconds of the reader for 1e9 of the amount."""
        return statistics.median(done.reader / done.amount * GIGA for done in self.rounds)

    @property
    def daemon(self) -> float:
        """Median processor seconds of every process of the daemon for 1e9 of the amount."""
        return statistics.median(done.daemon / done.amount * GIGA for done in self.rounds)

    def _speeds(self) -> list[float]:
        return [done.amount / done.seconds for done in self.rounds]


@dataclass(slots=True)
class Measured:
    """The figures of one operation by subject, and why a subject has none."""

    operation: str
    figures: dict[str, Figure] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def in_turns(
    operation: str,
    subjects: Sequence[Subject],
    work: Work,
    *,
    rounds: int,
    memory: int = 0,
    before: Callable[[], None] | None = None,
) -> Measured:
    """Every subject's figure for `work`. One that fails is left out from there on, with its reason.

    Before each round, and before its mount where that is a fresh one, `before` is called, and about as many bytes of
    `memory` as the round will take are touched and freed.
    """
    measured, done = Measured(operation), {subject.name: list[Round]() for subject in subjects}
    for turn in range(rounds):
        for subject in subjects if turn % 2 == 0 else reversed(subjects):
            if subject.name in measured.absent:
                continue
            try:
                if before is not None:
                    before()
                _touch(memory)
                done[subject.name].append(_round(subject, work))
            except (StrongroomError, OSError) as error:
                measured.absent[subject.name] = str(error)
                print(f"bench-fs: {operation}: {subject.name}: {error}", file=sys.stderr, flush=True)
    measured.figures = {
        name: Figure(tuple(rounds)) for name, rounds in done.items() if name not in measured.absent
    }
    return measured


def timed(act: Callable[[], int], mounted: Mounted) -> Round:
    """One round of `act` in this process; work ahead of it, of a mount that does such, counts from its beginning."""
    cpu, begun = time.process_time(), time.monotonic()
    amount = act()
    ended = time.monotonic()
    return Round(amount, ended - (mounted.since or begun), time.process_time() - cpu)


def _touch(size: int) -> None:
    """Take and give back memory, so that a virtual machine has it: a page its host took back is slow to come again."""
    if size:
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages, suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
            pages.madvise(_POPULATE_WRITE)


def _round(subject: Subject, work: Work) -> Round:
    with subject.ready() as mounted:
        if subject.read_ahead is not None:
            set_read_ahead(mounted.path, subject.read_ahead)
        before, busy = mounted.daemon.cpu() if mounted.daemon else 0.0, machine_cpu()
        done = work(mounted)
        busy = machine_cpu() - busy
        spent = mounted.daemon.cpu() - before if mounted.daemon else 0.0
    others = max(0.0, busy - spent - done.reader) if done.reader else 0.0
    return done._replace(daemon=spent, others=others)
