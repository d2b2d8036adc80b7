"""The key socket's connections: many strangers, each bounded in number, in bytes and in time, none in another's way.

One request of a connection is answered at a time, and the next one is read when that answer has left. What can be
answered at once is, without a task; what needs the machine runs in a task of its own, within a budget.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from guest.keysock.callers import caller_of
from guest.keysock.http import CONTINUE, HTTPError, Parser, Request, answer, failure
from guest.keysock.rights import Caller
from guest.keysock.turns import Turns
from strongroom.errors import (
    ConfigError,
    FormatError,
    MachineError,
    PolicyError,
    StrongroomError,
    VerifyError,
)
from strongroom.wire.canonical import JSON

BUDGET: Final = 2.5  # seconds for an answer: clients wait for 3
ARRIVAL: Final = 5.0  # seconds for a whole request from its first byte
IDLE: Final = 60.0  # seconds a connection may lie unused
DEPARTURE: Final = 10.0  # seconds for a client to take its answer
LINGER: Final = 2.0  # seconds in which what follows a refused request is still taken, and dropped
MAX_CONNECTIONS: Final = 1024
MAX_OF_ONE: Final = 64  # connections of one caller
BACKLOG: Final = 4096  # connections that wait to be accepted; beyond them the kernel sends away
AT_ONCE: Final = 128  # of them that are accepted before others are heard
MAX_HELD: Final = 64 << 20  # bytes of unfinished requests in all
MAX_HELD_OF_ONE: Final = 16 << 20  # of one caller
_HIGH_WATER: Final = 64 << 10  # bytes of a next request while this one is being answered
_STATUS: Final = (
    (PolicyError, HTTPStatus.FORBIDDEN),
    (MachineError, HTTPStatus.SERVICE_UNAVAILABLE),
    (FormatError, HTTPStatus.BAD_REQUEST),
    (VerifyError, HTTPStatus.BAD_REQUEST),
    (ConfigError, HTTPStatus.BAD_REQUEST),
)

NOBODY: Final = Caller(uid=-1)  # until the kernel was asked
Reply = tuple[HTTPStatus, JSON]
Handle = Callable[[Caller, Request], Reply | Awaitable[Reply]]
"""Answers one request of a caller, at once or later; raises StrongroomError."""


@dataclass(slots=True)
class House:
    """What all connections of this process share: how many there are, and how much they hold."""

    most: int = MAX_CONNECTIONS
    most_of_one: int = MAX_OF_ONE
    known: Callable[[Caller], bool] = lambda _: False  # whether a rule names the caller
    connections: dict[str, dict["Connection", None]] = field(default_factory=dict)  # by caller, oldest first
    held: Counter[str] = field(default_factory=Counter)
    turns: Turns = field(default_factory=Turns)
    count: int = 0
    served: int = 0
    refused: int = 0

    def admit(self, connection: "Connection", caller: Caller) -> bool:
        """Whether there is room. A caller who has too many makes it himself; else whoever has most of them does.

        What is idle goes first. A quarter of all places is for callers that a rule names.
        """
        mine = self.connections.get(caller.name, {})
        most = self.most if self.known(caller) else self.most - self.most // 4
        if len(mine) >= self.most_of_one:
            made = _evicted(mine)
        else:
            made = self.count < most or any(map(_evicted, self._fuller_than(len(mine))))
        if not made:
            self.refused += 1
            return False
        self.connections.setdefault(caller.name, {})[connection] = None
        self.count += 1
        return True

    def _fuller_than(self, size: int) -> list[dict["Connection", None]]:
        """The connections of each caller who has at least so many, and one: the fullest first."""
        fuller = (theirs for theirs in self.connections.values() if len(theirs) >= max(size, 1))
        return sorted(fuller, key=len, reverse=True)

    def forget(self, connection: "Connection", caller: str) -> None:
        mine = self.connections.get(caller, {})
        if connection in mine:
            del mine[connection]
            self.count -= 1
        if not mine:
            self.connections.pop(caller, None)

    def hold(self, caller: str, size: int) -> bool:
        """Whether another `size` bytes may arrive."""
        if self.held[caller] + size > MAX_HELD_OF_ONE or self.held.total() + size > MAX_HELD:
            return False
        self.held[caller] += size
        return True

    def release(self, caller: str, size: int) -> None:
        self.held[caller] -= size
        if not self.held[caller]:
            del self.held[caller]


def _evicted(connections: dict["Connection", None]) -> bool:
    """Whether the longest idle of these made room."""
    idle = next((one for one in connections if one.is_idle), None)
    if idle is not None:
        idle.abort()
    return idle is not None


class Connection(asyncio.Protocol):
    def __init__(self, house: House, handle: Handle, budget: float) -> None:
        self._house, self._handle, self._budget = house, handle, budget
        self._parser = Parser()
        self._caller = NOBODY
        self._ended = False  # no further request is looked at
        self._half = False  # the client has said all it will say
        self._waits = False  # for its turn
        self._holds = 0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed = 0.0  # the time span the timer stands for; 0 when none does
        self._transport: asyncio.Transport

    @property
    def is_idle(self) -> bool:
        return self._task is None and not self._parser.begun

    def abort(self) -> None:
        self._ended = True
        self._forget()
        self._transport.abort()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        try:
            self._caller = caller_of(self._socket)
        except (PolicyError, OSError) as error:
            self._turn_away(HTTPStatus.FORBIDDEN, str(error))
            return
        if self._house.admit(self, self._caller):
            self._within(IDLE)
            return
        sentence = f"{self._caller.name} has too many connections, want at most {self._house.most_of_one}"
        self._turn_away(HTTPStatus.SERVICE_UNAVAILABLE, sentence)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._parser.feed(data)
        if not self._is_busy:
            self._proceed()
        if self._is_busy and self._parser.buffered > _HIGH_WATER:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._half = True
        return self._is_busy and not self._ended  # who shut its side down may still read the answer

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio names it
        self._ended = True
        self._forget()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._within(DEPARTURE)

    def resume_writing(self) -> None:
        if not self._is_busy:
            self._proceed()

    # one request after another

    @property
    def _is_busy(self) -> bool:
        """Whether an answer is being made, or has to wait, or has not left."""
        return self._waits or self._task is not None or bool(self._transport.get_write_buffer_size())

    def _proceed(self) -> None:
        """See to what is there, at once where nobody waits."""
        if self._house.turns.are_free:
            self._step()
        else:
            self._wait()

    def _wait(self) -> None:
        self._waits = True
        self._house.turns.wait(self._caller.name, self._step)

    def _step(self) -> None:
        """Answer the one request that is next. Stops at one that takes time, and at an answer nobody reads."""
        self._waits = False
        if self._ended or self._is_busy:
            return
        try:
            if request := self._next():
                self._answer(request)
        except HTTPError as error:
            self._break_off(error)
        else:
            self._go_on(answered=request is not None)

    def _go_on(self, *, answered: bool) -> None:
        """To the next request where one may be there; else wait for more of it, or let go of who says no more."""
        if self._ended or self._is_busy:
            return
        if answered and self._parser.begun:
            self._wait()
        elif self._half:
            self._transport.close()
        else:
            self._within(ARRIVAL if self._parser.begun else IDLE)
            self._transport.resume_reading()

    def _next(self) -> Request | None:
        request = self._parser.next()
        if request is not None:
            self._let_go()
            self._quiet()
            return request
        if (size := self._parser.awaited) and not self._holds:
            if not self._house.hold(self._caller.name, size):
                raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, f"{self._caller.name} has too much under way")
            self._holds = size
            if self._parser.expects_continue:
                self._transport.write(CONTINUE)
        return None

    def _answer(self, request: Request) -> None:
        try:
            reply = self._handle(self._caller, request)
        except Exception as error:  # noqa: BLE001  whatever one caller provoked, the others are still answered
            self._finish(request, *refusal(error))
            return
        if isinstance(reply, tuple):
            self._finish(request, *reply)
        else:
            self._task = asyncio.ensure_future(self._later(request, reply))

    async def _later(self, request: Request, reply: Awaitable[Reply]) -> None:
        try:
            async with asyncio.timeout(self._budget):
                said = await reply
        except TimeoutError:
            sentence = f"the machine gave no answer within {self._budget:g} s, ask again"
            said = HTTPStatus.SERVICE_UNAVAILABLE, {"error": sentence}
        except Exception as error:  # noqa: BLE001  as above
            said = refusal(error)
        self._task = None
        if not self._ended:
            self._finish(request, *said)
            self._proceed()

    def _finish(self, request: Request, status: HTTPStatus, value: JSON) -> None:
        self._house.served += 1
        self._transport.write(answer(status, value, close=not request.keep_alive))
        if not request.keep_alive:
            self._ended = True
            self._within(DEPARTURE)
            self._transport.close()

    def _turn_away(self, status: HTTPStatus, sentence: str) -> None:
        self._transport.write(failure(status, sentence, close=True))
        self._ended = True
        self._transport.close()

    def _break_off(self, error: HTTPError) -> None:
        """Say why, then read and drop what still comes: a close in its face could eat the answer."""
        self._ended = True
        self._transport.write(failure(error.status, str(error), close=True))
        self._transport.resume_reading()
        self._within(LINGER)
        if self._half:
            self._transport.close()
        else:
            with suppress(OSError):
                self._transport.write_eof()

    # bytes and time

    @property
    def _socket(self) -> socket.socket:
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def _forget(self) -> None:
        self._quiet()
        self._let_go()
        self._house.forget(self, self._caller.name)

    def _let_go(self) -> None:
        if self._holds:
            self._house.release(self._caller.name, self._holds)
            self._holds = 0

    def _within(self, seconds: float) -> None:
        """The connection ends unless something happens in this time. Dribbling in does not renew it."""
        if self._timed == seconds and seconds != IDLE:
            return
        self._quiet()
        self._timed = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._timed == ARRIVAL:
            self._break_off(HTTPError(HTTPStatus.REQUEST_TIMEOUT, f"no whole request within {ARRIVAL:g} s"))
        else:
            self.abort()

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timed = None, 0.0


def refusal(error: Exception) -> Reply:
    """Status and body for an error; of a defect of ours it says nothing that could hold a secret."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status, {"error": str(error)}
    if isinstance(error, StrongroomError):
        return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(error)}
    print(f"keysock: defect: {type(error).__name__}", flush=True)
    return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "a defect here, told in the journal"}


async def listen(
    listener: socket.socket, house: House, handle: Handle, *, budget: float | None = None
) -> asyncio.Server:
    """Serve on a listening socket that somebody else made, and whose path stays when we go."""
    listener.setblocking(False)
    # Not create_unix_server: from Python 3.13 on that one removes the path it did not make.
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(house, handle, budget or BUDGET), sock=listener, backlog=AT_ONCE
    )
    listener.listen(BACKLOG)  # asyncio has one number for both, and would take a crowd in all at once
    return server
