"""Decisions to the audit log on a thread of its own: whoever waits for a line answers only when it is on the disk.

Decisions that wait together share one commit, so that the disk's pace bounds how long an answer takes and not how many
answers there are.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from strongroom.broker.audit import Audit
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.brokerage.house import House

_BATCH: Final = 256  # lines of one commit


@dataclass(frozen=True, slots=True)
class _Waiting:
    audit: Audit
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Recorder:
    """Until `close`. `echo` gets every line once it is kept, on the recorder's thread."""

    def __init__(self, house: House, echo: Callable[[str], None]) -> None:
        self._house = house
        self._echo = echo
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    async def record(self, audit: Audit) -> None:
        """Return when the line is on the disk. MachineError or VerifyError when it cannot be: then do not answer."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(audit, loop, loop.create_future())
        self._queue.put(waiting)
        await asyncio.shield(waiting.done)

    def told(self, lines: tuple[bytes, ...]) -> None:
        """Echo lines that are kept. Where they go may be gone: the log itself is in the database."""
        for line in lines:
            with suppress(Exception):
                self._echo(line.decode())

    def close(self) -> None:
        """Everything asked for before is on the disk when this returns."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._batch()
            if not batch:
                continue
            error: Exception | None = None
            lines: list[bytes] = []
            try:
                lines = self._house.record([one.audit for one in batch])
            except StrongroomError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - the thread must go on, and nobody be told a lie
                error = MachineError(f"audit: {type(failure).__name__}")
            for one in batch:
                with suppress(RuntimeError):  # its loop was closed: nobody waits
                    one.loop.call_soon_threadsafe(_finish, one.done, error)
            self.told(tuple(lines))

    def _batch(self) -> tuple[list[_Waiting], bool]:
        """What waits now, at least one; and whether that was the end."""
        batch: list[_Waiting] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True


def _finish(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
