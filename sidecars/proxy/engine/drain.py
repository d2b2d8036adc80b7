"""Closing in peace: no new exchange with the engine begins, those that run may finish, until the time is up.

The engine cannot be asked to do that itself: told to stop, it answers new requests with 500 and calls itself healthy.
So the door closes its own gate first, and the engine is stopped only when the door is.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

from strongroom.host.door.refusal import Refusal
from strongroom.host.life import place, reporter
from strongroom.host.notify import notify

DEADLINE: Final = 30.0  # seconds for running answers; below the unit's TimeoutStopSec=
RETRY_AFTER: Final = 5  # seconds, told to who comes while the door is closing


class State(StrEnum):
    """Of the gate between clients and the engine."""

    CLOSED = "closed"
    OPEN = "open"
    DRAINING = "draining"


class Gateway:
    """Counts the exchanges between clients and the engine, and says whether another may begin."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._running = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def running(self) -> int:
        return self._running

    def open(self) -> None:
        self.state = State.OPEN

    def close(self) -> None:
        self.state = State.CLOSED

    def require_open(self) -> None:
        """Refusal 503 while the door is closing."""
        if self.state is not State.OPEN:
            raise Refusal(
                503, "draining", "the door is closing", headers={"retry-after": str(RETRY_AFTER)}, last=True
            )

    def exchange(self) -> Self:
        """Entered around everything that a request does with the engine. Refusal 503 while the door is closing."""
        self.require_open()
        return self

    def __enter__(self) -> None:
        self._running += 1
        self._quiet.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running -= 1
        if not self._running:
            self._quiet.set()

    async def drain(self, deadline: float = DEADLINE) -> bool:
        """Let nobody in any more and wait for those inside; whether all of them left `deadline` seconds."""
        if self.state is State.OPEN:
            self.state = State.DRAINING
        try:
            async with asyncio.timeout(deadline):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True


async def until_drained(
    work: Coroutine[Any, Any, int], drain: Callable[[], Awaitable[object]], log: logging.Logger
) -> int:
    """The exit code of `work`; 0 when it was stopped by SIGTERM or SIGINT, after `drain`.

    `work` goes on while `drain` does: an engine that dies meanwhile still ends it at once. A second signal ends both.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(reporter(log))
    life = asyncio.create_task(work)
    stopping: list[asyncio.Task[None]] = []

    async def stop() -> None:
        try:
            await drain()
        except Exception as error:  # noqa: BLE001 - our own defect must not keep the door open
            log.error("defect: %s", place(error))
        finally:
            life.cancel()

    def told() -> None:
        if stopping:
            stopping[0].cancel()
            return
        notify("STOPPING=1\nSTATUS=draining")
        log.info("told to stop: no new request, running ones may finish")
        stopping.append(asyncio.create_task(stop()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        return await life
    except asyncio.CancelledError:
        return 0
    finally:
        for task in stopping:
            task.cancel()
            await asyncio.wait([task])
