"""Two ways to the same end, timed in turns: what else the machine does then slows both."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Seconds of each round, and how many bytes one round moves."""

    title: str
    baseline: tuple[str, tuple[float, ...]]
    subject: tuple[str, tuple[float, ...]]
    size: int

    @property
    def ratio(self) -> float:
        """Median speed of the subject as a share of the baseline's: 1.0 is no loss."""
        return statistics.median(self.baseline[1]) / statistics.median(self.subject[1])

    def report(self) -> str:
        lines = [
            f"{self.title}, {self.size >> 20} MiB, median of {len(self.subject[1])} rounds (slowest to fastest)"
        ]
        for name, seconds in (self.baseline, self.subject):
            middle, slow, fast = (
                self.size / value / 1e6 for value in (statistics.median(seconds), max(seconds), min(seconds))
            )
            lines.append(f"  {name:<24} {middle:>8.0f} MB/s   ({slow:.0f} to {fast:.0f})")
        return "\n".join([*lines, f"  {'share of the first':<24} {self.ratio:>8.2f}"])


def in_turns(
    baseline: Callable[[], None], subject: Callable[[], None]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of ROUNDS rounds of each, after one of each that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for counted in (False, *[True] * ROUNDS):
        for work, seconds in zip((baseline, subject), times, strict=True):
            begun = time.perf_counter()
            work()
            if counted:
                seconds.append(time.perf_counter() - begun)
    return tuple(times[0]), tuple(times[1])
