"""Turns with the firmware: it makes one report at a time, and a stranger alone must not keep others waiting."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from strongroom.host.door.refusal import too_busy

MAX_WAITING: Final = 32  # clients that wait for evidence
MAX_WAITING_EACH: Final = 8  # of them from one origin


class Turns:
    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = Counter[bytes]()

    @asynccontextmanager
    async def wait(self, origin: bytes) -> AsyncIterator[None]:
        """One's turn. Refusal 429 when too many wait already."""
        if self._waiting.total() >= MAX_WAITING or self._waiting[origin] >= MAX_WAITING_EACH:
            raise too_busy("too many clients wait for evidence", seconds=2)
        self._waiting[origin] += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting[origin] -= 1
            if not self._waiting[origin]:
                del self._waiting[origin]
