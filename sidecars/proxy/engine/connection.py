"""Client of the engine: a connection over its unix socket, for one request at a time.

Closing it is the one signal on which the engine stops computing at once. The engine's bytes are bounded and its silence
too: it is measured, but it also parses what strangers wrote. A connection knows which process it leads to, so that
nothing is ever asked of one that sang no canary.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, Self, cast

from sidecars.proxy.engine.answer import AnswerReader, EngineHead
from strongroom.errors import FormatError, TransportError
from strongroom.host.door.waiter import Waiter

CONNECT: Final = 2.0  # seconds
GAP: Final = 300.0  # seconds between two pieces of a streamed answer
TOTAL: Final = 6 * 3600.0  # seconds for one answer
MAX_WHOLE: Final = 32 * 1024 * 1024  # bytes of an answer that is not streamed
HIGH_WATER: Final = 256 * 1024  # bytes that wait for whoever asked
LARGE: Final = (
    64 * 1024
)  # bytes of a request from which on it is kept no longer than the engine takes to read it
_UCRED: Final = Struct("=iII")  # pid, uid, gid (unix(7), SO_PEERCRED)
_CLOSED: Final = "engine: it closed the connection"
_BROKE: Final = "engine: it broke off, or broke HTTP"
_SILENT: Final = "engine: no answer in time"
_UNASKED: Final = "engine: it spoke unasked"


@dataclass(frozen=True, slots=True)
class Process:
    """Who listens on the engine's socket, as the kernel noted when it began to."""

    pid: int
    uid: int


class EngineConnection(asyncio.Protocol):
    """Every method may raise TransportError: the engine is gone, silent, or broke HTTP."""

    process: Process

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter = Waiter(self._loop)
        self._transport: asyncio.Transport
        self._answer: AnswerReader | None = None  # None between two requests
        self._pieces: list[bytes] = []  # of the body, one for each read
        self._waiting = 0  # bytes in it
        self._room = HIGH_WATER
        self._ended = ""  # why nothing more comes
        self._failure: Exception | None = None  # of whoever takes the pieces
        self._take: Callable[[bytes], None] | None = None
        self._gap = self._end = 0.0
        self._heard = self._held = False
        self._unsent = False  # more is written than the engine has read
        self._rests = 0.0  # loop.time() since when nothing is asked of it
        self.unheard = False  # the engine closed the connection before it answered with a single byte

    @classmethod
    async def open(cls, path: Path, *, process: Process | None = None) -> Self:
        """A connection to whoever listens at `path`; with `process`, to that process or to nobody."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT):
                transport, connection = await loop.create_unix_connection(cls, str(path))
        except TimeoutError as error:
            raise TransportError(f"engine: no connection in {CONNECT:g} s") from error
        except OSError as error:
            raise TransportError(f"engine: {error.strerror}") from error
        try:
            connection.process = _listener(transport.get_extra_info("socket"))
        except OSError as error:
            connection.close()
            raise TransportError(f"engine: {error.strerror}" if error.strerror else _CLOSED) from error
        if connection.process.pid == 0 or connection.process != (process or connection.process):
            connection.close()
            raise TransportError("engine: another process listens on its socket")
        return connection

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.over:
            self._end_with(_UNASKED)
            return
        self._heard = True
        try:
            piece = self._answer.feed(data)
        except FormatError as error:
            self._end_with(str(error) if "nothing says" in str(error) else _BROKE)
            return
        if self._answer.rest:
            self._end_with(_UNASKED)
        if self._take is not None:
            self._hand_on(self._take, piece, self._answer.over)
            return
        if piece:
            self._pieces.append(piece)
            self._waiting += len(piece)
            if self._waiting > self._room:
                self.hold()
        self._waiter.wake()

    def _hand_on(self, take: Callable[[bytes], None], piece: bytes, over: bool) -> None:
        try:
            if piece:
                take(piece)
        except Exception as error:  # noqa: BLE001 - for whoever asked, who waits in deliver()
            self._failure, self._take = error, None
            over = True
        if over:
            self._waiter.wake()
        else:
            self._waiter.extend(min(self._loop.time() + self._gap, self._end))

    def connection_lost(self, exc: Exception | None) -> None:
        self.unheard = not self._ended and not self._heard
        if isinstance(exc, OSError) and exc.strerror:
            reason = f"engine: {exc.strerror}"
        else:
            reason = _BROKE if self._answer is not None and self._heard else _CLOSED
        self._end_with(reason)
        self._waiter.close()

    def _end_with(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._transport.abort()
        self._waiter.wake()

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False
        self._waiter.wake()

    # whoever asks calls these

    async def ask(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        request_id: str = "",
        within: float,
        keep: bool = False,
    ) -> EngineHead:
        """Send one request; the head of its answer, if it comes `within` seconds. `keep` allows another one later."""
        self.put(method, target, body=body, request_id=request_id, keep=keep)
        body = b""
        return await self.head(within=within)

    def put(
        self, method: str, target: str, *, body: bytes = b"", request_id: str = "", keep: bool = False
    ) -> None:
        """Send one request. sent() and head() go on from there."""
        self._require_here()
        self._answer = AnswerReader()
        self._heard = False
        self._room = HIGH_WATER
        begin = b"%b %b HTTP/1.1\r\nhost: engine\r\naccept: */*\r\n%b%bconnection: %b\r\n\r\n" % (
            method.encode(),
            target.encode(),
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) if body else b"",
            b"x-request-id: %b\r\n" % request_id.encode() if request_id else b"",
            b"keep-alive" if keep else b"close",
        )
        if len(body) <= LARGE:
            self._transport.write(begin + body)
        else:
            self._transport.write(begin)
            self._transport.write(body)

    async def sent(self, *, within: float) -> None:
        """Wait until the engine has read nearly all of the request, or answers before it did."""
        until = self._loop.time() + within
        while self._unsent and not self._heard:
            self._require_here()
            await self._wait(until)

    async def head(self, *, within: float) -> EngineHead:
        """Of the answer to what put() sent."""
        answer = self._answer
        if answer is None:
            raise TransportError("engine: nothing was asked of it")
        until = self._loop.time() + within
        try:
            while (head := answer.head) is None:
                if self._ended:
                    raise TransportError(self._ended)
                await self._waiter.wait(until - self._loop.time())
        except TimeoutError as error:
            raise TransportError(_SILENT) from error
        return head

    async def pieces(self, *, gap: float = GAP, total: float = TOTAL) -> AsyncIterator[bytes]:
        """The body as it comes: one piece per read, however many chunks that read held."""
        end = self._loop.time() + total
        while True:
            for piece in self._drawn():
                yield piece
            if self.over:
                return
            self._require_here()
            await self._wait(min(self._loop.time() + gap, end))

    async def deliver(self, take: Callable[[bytes], None], *, gap: float = GAP, total: float = TOTAL) -> None:
        """The same without a wait between a read and its piece: `take` is called with each as it is read.

        Whoever cannot take more calls hold(), and later go_on(). Raises what `take` raises.
        """
        for piece in self._drawn():
            take(piece)
        self._take, self._gap, self._end = take, gap, self._loop.time() + total
        try:
            while not self.over:
                self._require_here()
                await self._wait(min(self._loop.time() + gap, self._end))
                if self._failure is not None:
                    raise self._failure
        finally:
            self._take = None

    async def whole(self, *, within: float = TOTAL, most: int = MAX_WHOLE) -> bytes:
        """The whole body, if all of it comes `within` seconds."""
        self._room = most
        until = self._loop.time() + within
        while not self.over and self._waiting <= most:
            self._require_here()
            self.go_on()
            await self._wait(until)
        if self._waiting > most:
            raise TransportError(f"engine: the answer is larger than {most} bytes")
        pieces = self._drawn()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def silence(self, seconds: float) -> None:
        """Wait while nothing comes, as nothing should between two requests. An end raises at once."""
        self._require_here()
        try:
            await self._waiter.wait(seconds)
        except TimeoutError:
            return
        self._require_here()

    @property
    def over(self) -> bool:
        """The whole answer has come."""
        return self._answer is not None and self._answer.over

    @property
    def reusable(self) -> bool:
        """It may be asked again: the answer is over, and the engine keeps the connection."""
        answer = self._answer
        return not self._ended and not self._unsent and (answer is None or (answer.over and answer.keeps))

    @property
    def rested(self) -> float:
        """Seconds since again()."""
        return self._loop.time() - self._rests

    def again(self) -> None:
        """Make ready for another request. Raises TransportError when the engine said it would close."""
        if not self.reusable:
            raise TransportError(self._ended or "engine: it does not keep connections")
        self._answer = None
        self._rests = self._loop.time()
        self.go_on()  # or its end, and the next answer, would go unseen

    def hold(self) -> None:
        """Read no more of the answer for now: the engine waits."""
        if not self._held and not self._ended:
            self._held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._held:
            self._held = False
            if not self._ended:
                self._transport.resume_reading()

    def close(self) -> None:
        """At once. The engine aborts what it was computing for us."""
        self._end_with(_CLOSED)
        self._waiter.close()

    def _drawn(self) -> list[bytes]:
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        self.go_on()
        return pieces

    def _require_here(self) -> None:
        if self._ended and not self.over:
            raise TransportError(self._ended)

    async def _wait(self, until: float) -> None:
        try:
            await self._waiter.wait(until - self._loop.time())
        except TimeoutError as error:
            raise TransportError(_SILENT) from error


def _listener(sock: socket.socket | None) -> Process:
    if sock is None:  # uvloop's transport, once the connection is lost
        raise OSError(_CLOSED)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Process(pid, uid)
