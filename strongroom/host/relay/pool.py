"""Connections to one server, each verified when it was opened: kept for a while, used by one request at a time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from strongroom.errors import ProtocolError
from strongroom.host import exchange
from strongroom.host.sealedhttp import ForgottenKeyError

IDLE: Final = 50.0  # seconds; a door ends a connection that was silent for 75
MAX_AGE: Final = 900.0  # seconds that evidence is relied on


class Connection(exchange.Connection, Protocol):
    @property
    def is_quiet(self) -> bool: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Idle:
    connection: Connection
    opened: float
    since: float
    age: int  # of the pool, when it was opened: how many times keys were forgotten before


class Pool:
    """For any number of threads. `open` verifies, and raises when there is nothing to rely on; `clock` in seconds."""

    def __init__(
        self,
        open: Callable[[], Connection],
        *,
        max_age: float = MAX_AGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._max_age, self._clock = open, max_age, clock
        self._idle: list[_Idle] = []
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._closed = False
        self._age = 0

    @contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """A connection of one's own, ready for a request. It is kept only if what was done with it ended well.

        ForgottenKeyError is the end of all that were opened before, too.
        """
        taken = self._take() or self._fresh()
        try:
            yield taken.connection
        except BaseException as error:
            taken.connection.close()
            if isinstance(error, ForgottenKeyError):
                self._forget(taken.age)
            raise
        self._keep(taken)

    def add(self, connection: Connection) -> None:
        """Keep one that was opened just now."""
        now = self._clock()
        self._keep(_Idle(connection, now, now, self._age))

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for each in idle:
            each.connection.close()

    def _forget(self, age: int) -> None:
        with self._lock:
            if age != self._age:
                return  # another request found out before, and those that are here now are newer
            self._age += 1
            idle, self._idle = self._idle, []
        for each in idle:
            each.connection.close()

    def _take(self) -> _Idle | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                found = self._idle.pop()  # the one used last: the others may grow old
            now = self._clock()
            aged = now - found.opened >= self._max_age or now - found.since >= IDLE
            if not aged and found.connection.is_quiet:
                return found
            found.connection.close()

    def _fresh(self) -> _Idle:
        with self._opening:  # one verification at a time: the supply of collateral is not for several threads
            if self._closed:
                raise ProtocolError("connect: it is closing")
            now, age = self._clock(), self._age  # both count from before the evidence was asked for
            return _Idle(self._open(), now, now, age)

    def _keep(self, used: _Idle) -> None:
        now = self._clock()
        with self._lock:
            keeps = not self._closed and now - used.opened < self._max_age and used.age == self._age
            if keeps:
                self._idle.append(replace(used, since=now))
        if not keeps:
            used.connection.close()
