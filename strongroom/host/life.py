"""How our processes live: until they are stopped, telling the service manager that their loop turns.

Their own defects are named by kind and place only: an exception's text may hold a key, a prompt or a part of a model.
"""

import asyncio
import logging
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from strongroom.host.notify import notify, watchdog_interval

T = TypeVar("T")


def place(error: BaseException) -> str:
    """What kind of defect it is, and the line it shows at."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {where}"


def reporter(log: logging.Logger) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """A handler for an event loop's exceptions."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        log.error("defect: %s", place(error) if isinstance(error, BaseException) else "event loop trouble")

    return report


async def until_stopped(work: Coroutine[Any, Any, int], log: logging.Logger) -> int:
    """The exit code of `work`; 0 when it was stopped by SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(reporter(log))
    life = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.cancel)
    try:
        return await life
    except asyncio.CancelledError:
        return 0


async def beat() -> None:
    """Tell the service manager that the loop turns, as often as it asked."""
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """`work` beside what runs inside, cancelled and awaited at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen, by whoever waited for it
