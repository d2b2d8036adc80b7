"""A line about each request, written a moment later together with others: alone it costs more than a request's head."""

import asyncio
import logging
from typing import Final

MOMENT: Final = 0.1  # seconds that a line may wait
MOST: Final = 256  # lines that may
_log: Final = logging.getLogger("strongroom.proxy")


class Diary:
    """Lines name requests, routes and outcomes in our own words, and nothing of what was said."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._later: asyncio.TimerHandle | None = None

    def note(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= MOST:
            self.write()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(MOMENT, self.write)

    def write(self) -> None:
        """What waits, now."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._lines:
            lines, self._lines = self._lines, []
            _log.info("%s", "\n".join(lines))
