"""Trying again: after failures of transport alone, with pauses that grow and differ, as long as it leads somewhere."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Final

from strongroom.errors import TransportError

TRIES: Final = 8  # in a row without one new byte
FIRST_PAUSE: Final = 0.5  # seconds
LONGEST_PAUSE: Final = 30.0
LONGEST_WISH: Final = 120.0  # seconds that a store may ask for
_CHANCE: Final = secrets.SystemRandom()


class Attempts:
    """Counts the tries at one file. A byte never had before makes up for all that failed."""

    def __init__(self, *, tries: int = TRIES, first_pause_s: float = FIRST_PAUSE) -> None:
        self._tries = tries
        self._first = self._pause = first_pause_s
        self._left = tries
        self._wish = 0.0
        self._reached = 0

    def heed(self, headers: Mapping[str, str]) -> None:
        """Wait at least as long as the answer asks for (Retry-After, in seconds)."""
        text = headers.get("retry-after", "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            self._wish = min(float(text), LONGEST_WISH)

    async def pause(self, error: TransportError, *, reached: int) -> None:
        """Wait before the next try, or raise `error` when there have been enough; `reached` is in bytes."""
        if reached > self._reached:
            self._reached, self._left, self._pause = reached, self._tries, self._first
        self._left -= 1
        if self._left <= 0:
            raise error
        await asyncio.sleep(max(self._pause * _CHANCE.uniform(0.5, 1.0), self._wish))
        self._pause, self._wish = min(2 * self._pause, LONGEST_PAUSE), 0.0
