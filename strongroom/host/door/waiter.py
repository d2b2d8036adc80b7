"""Where one task waits, with one timer for all its waits.

asyncio.timeout() makes two objects and a timer for each wait. Most waits of a door end long before their time: so a
timer that is armed already and ends no later than wanted stays, and looks again when it fires.
"""

import asyncio
from typing import Final

_FOREVER: Final = float("inf")


class Waiter:
    """For one task at a time. `loop.time()` is its clock."""

    __slots__ = ("_fires", "_loop", "_timer", "_until", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: asyncio.Future[None] | None = None
        self._until = self._fires = _FOREVER
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, within: float | None = None) -> "asyncio.Future[None]":
        """To be awaited: ends with wake(), with fail(), or with TimeoutError after `within` seconds."""
        self._waiting = waiting = self._loop.create_future()
        self._until = _FOREVER if within is None else self._loop.time() + within
        if self._until < self._fires:
            self._arm(self._until)
        return waiting

    def extend(self, until: float) -> None:
        """Let whoever waits do so until then, which is no earlier than what was said before."""
        self._until = until

    def wake(self) -> None:
        """End the wait, if there is one."""
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            if not waiting.done():
                waiting.set_result(None)

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._fires = None, _FOREVER

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, self._fires = None, _FOREVER
        waiting = self._waiting
        if waiting is None or waiting.done() or self._until == _FOREVER:
            return  # the next wait arms it anew
        if self._loop.time() < self._until:
            self._arm(self._until)
        else:
            self._waiting = None
            waiting.set_exception(TimeoutError())
