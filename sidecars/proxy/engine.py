"""Client of the engine: one request per connection over its unix socket.

A fresh connection costs a tenth of a millisecond on a unix socket, and closing it is the one signal on which the
engine stops computing at once; so nothing is pooled. The engine's bytes are bounded and its silence too: it is
measured, but it also parses what strangers wrote. A connection knows which process it leads to, so that nothing is
ever asked of one that sang no canary.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, Self

import h11

from strongroom.errors import TransportError

CONNECT: Final = 2.0  # seconds
GAP: Final = 300.0  # seconds between two pieces of a streamed answer
TOTAL: Final = 6 * 3600.0  # seconds for one answer
MAX_HEAD: Final = 64 * 1024  # bytes
MAX_WHOLE: Final = 32 * 1024 * 1024  # bytes of an answer that is not streamed
_READ: Final = 64 * 1024  # bytes
_UCRED: Final = Struct("=iII")  # pid, uid, gid (unix(7), SO_PEERCRED)


@dataclass(frozen=True, slots=True)
class Process:
    """Who listens on the engine's socket, as the kernel noted when it began to."""

    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class EngineHead:
    status: int
    content_type: str

    @property
    def streams(self) -> bool:
        return self.content_type.partition(";")[0].strip().lower() == "text/event-stream"


class EngineConnection:
    """Every method may raise TransportError: the engine is gone, silent, or broke HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.process = _listener(writer.get_extra_info("socket"))
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    @classmethod
    async def open(cls, path: Path, *, process: Process | None = None) -> Self:
        """A connection to whoever listens at `path`; with `process`, to that process or to nobody."""
        try:
            async with asyncio.timeout(CONNECT):
                connection = cls(*await asyncio.open_unix_connection(path))
        except TimeoutError as error:
            raise TransportError(f"engine: no connection in {CONNECT:g} s") from error
        except OSError as error:
            raise TransportError(f"engine: {error.strerror}") from error
        if connection.process.pid == 0 or connection.process != (process or connection.process):
            connection.close()
            raise TransportError("engine: another process listens on its socket")
        return connection

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
        """Send one request; the head of its answer, if it comes `within` seconds. `keep` allows another one later.

        An answer that only the connection's end would end is refused: its truncation could not be seen.
        """
        headers = [("host", "engine"), ("accept", "*/*")]
        if body:
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        if request_id:
            headers.append(("x-request-id", request_id))
        if not keep:
            headers.append(("connection", "close"))
        self._send(h11.Request(method=method, target=target, headers=headers))
        if body:
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        until = _clock() + within
        while True:
            event = await self._event(until)
            if isinstance(event, h11.Response):
                _require_end(event)
                return EngineHead(event.status_code, _content_type(event))

    async def pieces(self, *, gap: float = GAP, total: float = TOTAL) -> AsyncIterator[bytes]:
        """The body as it comes: one piece per read, however many chunks that read held."""
        over, end = False, _clock() + total
        while not over:
            piece = bytearray()
            event = await self._event(min(_clock() + gap, end))
            while isinstance(event, h11.Data):
                piece += event.data
                event = self._next()
            over = isinstance(event, h11.EndOfMessage)
            if piece:
                yield bytes(piece)

    async def whole(self, *, within: float = TOTAL, most: int = MAX_WHOLE) -> bytes:
        """The whole body, if all of it comes `within` seconds."""
        body = bytearray()
        async for piece in self.pieces(gap=within, total=within):
            body += piece
            if len(body) > most:
                raise TransportError(f"engine: the answer is larger than {most} bytes")
        return bytes(body)

    async def silence(self, seconds: float) -> None:
        """Wait while nothing comes, as nothing should between two requests. An end raises at once."""
        try:
            async with asyncio.timeout(seconds):
                data = await self._reader.read(1)
        except TimeoutError:
            return
        except OSError as error:
            raise TransportError(f"engine: {error.strerror}") from error
        raise TransportError("engine: it spoke unasked" if data else "engine: it closed the connection")

    def again(self) -> None:
        """Make ready for another request. Raises TransportError when the engine said it would close."""
        try:
            self._h11.start_next_cycle()
        except h11.LocalProtocolError as error:
            raise TransportError("engine: it does not keep connections") from error

    def close(self) -> None:
        """At once. The engine aborts what it was computing for us."""
        self._writer.transport.abort()

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._h11.send(event) or b"")

    def _next(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise TransportError("engine: it broke off, or broke HTTP") from error

    async def _event(self, until: float) -> object:
        event = self._next()
        while event is h11.NEED_DATA:
            try:
                async with asyncio.timeout_at(until):
                    self._h11.receive_data(await self._reader.read(_READ))
            except TimeoutError as error:
                raise TransportError("engine: no answer in time") from error
            except OSError as error:
                raise TransportError(f"engine: {error.strerror}") from error
            event = self._next()
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise TransportError("engine: it closed the connection")
        return event


def _content_type(response: h11.Response) -> str:
    return next((value.decode("latin-1") for name, value in response.headers if name == b"content-type"), "")


def _require_end(response: h11.Response) -> None:
    if not any(name in {b"content-length", b"transfer-encoding"} for name, _ in response.headers):
        raise TransportError("engine: nothing says where its answer ends")


def _listener(sock: socket.socket) -> Process:
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Process(pid, uid)


def _clock() -> float:
    return asyncio.get_running_loop().time()
