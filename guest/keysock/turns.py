"""Whose request is next: one of each caller, round and round, and between two rounds whatever else there is to do.

A request can take milliseconds, and a client may send hundreds in one breath, on many connections. Where nobody waits
an answer is made at once; otherwise a caller waits for one request of each of the others, and for no more.
"""

import asyncio
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]
"""Answers one request, or begins to. Raises nothing."""


class Turns:
    def __init__(self) -> None:
        self._waiting: dict[str, deque[Work]] = {}  # by caller

    @property
    def are_free(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def wait(self, caller: str, work: Work) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._round)
        self._waiting.setdefault(caller, deque()).append(work)

    def _round(self) -> None:
        try:
            for caller in list(self._waiting):
                mine = self._waiting[caller]
                mine.popleft()()
                if not mine:
                    del self._waiting[caller]
        finally:  # a defect of one answer does not end all of them
            self._waiting = {caller: mine for caller, mine in self._waiting.items() if mine}
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._round)
