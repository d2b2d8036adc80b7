"""What the demo prints: numbered steps with their time, as a person reads along."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Screen:
    """Numbered steps on standard output."""

    def __init__(self, steps: int) -> None:
        self._steps, self._number, self._begun = steps, 0, time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._number += 1
        begun = time.monotonic()
        print(f"\n[{self._number}/{self._steps}] {title}", flush=True)
        yield
        print(f"      done in {time.monotonic() - begun:.1f} s", flush=True)

    def say(self, text: str) -> None:
        for line in text.rstrip("\n").splitlines():
            print(f"      {line}", flush=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the first line."""
        return time.monotonic() - self._begun


def fail(sentence: str) -> None:
    print(f"demo: {sentence}", file=sys.stderr, flush=True)
