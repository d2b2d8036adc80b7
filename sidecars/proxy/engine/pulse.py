"""When the engine last gave anything to anybody: a canary that waits behind others is not yet a sign of death.

Answers that are not streamed bring their first byte with their last one, so the engine's own count of tokens is read
too. It is counted where answers are written, and stands still when the core that computes them does.
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecars.proxy.engine.connection import EngineConnection, Process
from strongroom.errors import TransportError

WITHIN: Final = 30.0  # seconds for the engine's count
_MAX_PAGE: Final = 8 << 20  # bytes
_COUNTED: Final = re.compile(rb"^vllm:(?:generation|prompt)_tokens_total\{.*$", re.MULTILINE)


class Pulse:
    """`progress` is when any answer last brought a byte. All times are the event loop's."""

    def __init__(self, path: Path, process: Process, progress: Callable[[], float] | None = None) -> None:
        self._path, self._process, self._progress = path, process, progress
        self._counts: list[bytes] = []
        self._grown = 0.0  # when the counts were last seen to be other than before

    async def last(self) -> float:
        """When the engine last worked for anybody, as far as is known. 0.0 when nothing is."""
        counts = await self._read()
        if counts and counts != self._counts:
            if self._counts:
                self._grown = asyncio.get_running_loop().time()
            self._counts = counts
        return max(self._grown, self._progress() if self._progress is not None else 0.0)

    async def _read(self) -> list[bytes]:
        try:
            connection = await EngineConnection.open(self._path, process=self._process)
        except TransportError:
            return []  # no news; whoever watches the engine sees to the rest
        try:
            await connection.ask("GET", "/metrics/", within=WITHIN)
            return _COUNTED.findall(await connection.whole(within=WITHIN, most=_MAX_PAGE))
        except TransportError:
            return []
        finally:
            connection.close()
