"""Decisions to the audit log on a thread of its own: whoever waits for a line answers only when it is on the disk.

Decisions that wait together share one commit, so that the disk's pace bounds how long an answer takes and not how many
answers there are. One that nobody else waits beside is committed at once by whoever has it while the disk is quick:
two changes of thread would take longer than the disk does.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from strongroom.broker.audit import Audit
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.brokerage.database import LOG_PAGES, BusyError
from strongroom.host.brokerage.house import House

_BATCH: Final = 256  # lines of one commit
QUICK: Final = 0.002  # seconds that commits take where whoever has a line may make one
_WEIGHT: Final = 0.25  # of the last commit in what they take
_PAGES: Final = 3  # of the log of commits, for one of a line
_LINES: Final = 6  # more in a commit, for another page
_Futures: TypeAlias = "list[asyncio.Future[None]]"


@dataclass(frozen=True, slots=True)
class _OnLoop:
    audit: Audit
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _OnThread:
    audit: Audit
    done: Future[None]


@dataclass(frozen=True, slots=True)
class _Kept:
    lines: tuple[bytes, ...]


_Item: TypeAlias = "_OnLoop | _OnThread | _Kept"


class Recorder:
    """Until `close`. `echo` gets every line once it is kept, on the recorder's thread."""

    def __init__(self, house: House, echo: Callable[[str], None]) -> None:
        self._house = house
        self._echo = echo
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._pace = 2 * QUICK  # seconds a commit takes; nothing is known yet
        self._pages = 0  # of the log of commits since it began anew, about
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    async def record(self, audit: Audit) -> None:
        """Return when the line is on the disk. MachineError or VerifyError when it cannot be: then do not answer."""
        if self._at_once(audit):
            return
        loop = asyncio.get_running_loop()
        waiting = _OnLoop(audit, loop, loop.create_future())
        self._queue.put(waiting)
        await asyncio.shield(waiting.done)

    def keep(self, audit: Audit) -> None:
        """`record` for a thread that waits."""
        if not self._at_once(audit):
            self.submit(audit).result()

    def submit(self, audit: Audit) -> Future[None]:
        """`record` for whoever waits later, or not at all."""
        waiting = _OnThread(audit, Future())
        self._queue.put(waiting)
        return waiting.done

    def told(self, lines: tuple[bytes, ...]) -> None:
        """Echo lines that are kept, soon."""
        self._queue.put(_Kept(lines))

    def close(self) -> None:
        """Everything asked for before is on the disk when this returns."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._batch()
            waiting = [one for one in batch if not isinstance(one, _Kept)]
            self._tell(line for one in batch if isinstance(one, _Kept) for line in one.lines)
            if waiting:
                self._commit(waiting)
            if self._pages >= LOG_PAGES:
                self._make_room()

    def _commit(self, waiting: list[_OnLoop | _OnThread]) -> None:
        error: Exception | None = None
        lines: list[bytes] = []
        try:
            lines = self._timed([one.audit for one in waiting], wait=True)
        except StrongroomError as failure:
            error = failure
        _answer(waiting, error)
        self._tell(lines)

    def _at_once(self, audit: Audit) -> bool:
        """Whether the line is on the disk already. If not, nothing has happened."""
        if self._pace > QUICK or self._pages >= LOG_PAGES or not self._queue.empty():
            return False
        try:
            lines = self._timed([audit], wait=False)
        except BusyError:
            return False
        self.told(tuple(lines))
        return True

    def _timed(self, audits: list[Audit], *, wait: bool) -> list[bytes]:
        begun = time.monotonic()
        try:
            lines = self._house.record(audits, wait=wait)
        except StrongroomError:
            raise
        except Exception as failure:  # the thread must go on, and nobody be told a lie
            raise MachineError(f"audit: {type(failure).__name__}") from failure
        self._pace += _WEIGHT * (time.monotonic() - begun - self._pace)
        self._pages += _PAGES + len(lines) // _LINES
        return lines

    def _make_room(self) -> None:
        """After an answer, not before one, the log of commits begins anew."""
        with suppress(StrongroomError):  # it will be tried again, by us or by SQLite
            self._house.database.checkpoint()
        self._pages = 0

    def _tell(self, lines: Iterable[bytes]) -> None:
        """Where they go may be gone: the log itself is in the database."""
        for line in lines:
            with suppress(Exception):
                self._echo(line.decode())

    def _batch(self) -> tuple[list[_Item], bool]:
        """What waits now, at least one; and whether that was the end."""
        batch: list[_Item] = []
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


def _answer(waiting: list[_OnLoop | _OnThread], error: Exception | None) -> None:
    """Tell everybody who waits; a loop is woken once for all of its own."""
    loops: dict[asyncio.AbstractEventLoop, _Futures] = {}
    for one in waiting:
        if isinstance(one, _OnLoop):
            loops.setdefault(one.loop, []).append(one.done)
        elif error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(error)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # it was closed: nobody waits
            loop.call_soon_threadsafe(_finish, futures, error)


def _finish(futures: _Futures, error: Exception | None) -> None:
    for done in futures:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
