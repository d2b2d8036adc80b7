"""Client of the engine: one request per connection over its unix socket.

A fresh connection costs a tenth of a millisecond on a unix socket, and closing it is the one signal on which the
engine stops computing at once; so nothing is pooled. The engine's bytes are bounded and its silence too: it is
measured, but it also parses what strangers wrote.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import h11

from strongroom.errors import TransportError

CONNECT: Final = 2.0  # seconds
GAP: Final = 300.0  # seconds between two pieces of a streamed answer
TOTAL: Final = 6 * 3600.0  # seconds for one answer
MAX_HEAD: Final = 64 * 1024  # bytes
MAX_WHOLE: Final = 32 * 1024 * 1024  # bytes of an answer that is not streamed
_READ: Final = 64 * 1024  # bytes


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
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    @classmethod
    async def open(cls, path: Path) -> Self:
        try:
            async with asyncio.timeout(CONNECT):
                return cls(*await asyncio.open_unix_connection(path))
        except TimeoutError as error:
            raise TransportError(f"engine: no connection in {CONNECT:g} s") from error
        except OSError as error:
            raise TransportError(f"engine: {error.strerror}") from error

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
        while True:
            event = await self._event(within)
            if isinstance(event, h11.Response):
                return EngineHead(event.status_code, _content_type(event))

    async def pieces(self, *, gap: float = GAP) -> AsyncIterator[bytes]:
        """The body as it comes: one piece per read, however many chunks that read held."""
        over = False
        while not over:
            piece = bytearray()
            event = await self._event(gap)
            while isinstance(event, h11.Data):
                piece += event.data
                event = self._next()
            over = isinstance(event, h11.EndOfMessage)
            if piece:
                yield bytes(piece)

    async def whole(self, *, within: float = TOTAL, most: int = MAX_WHOLE) -> bytes:
        """The whole body."""
        body = bytearray()
        async for piece in self.pieces(gap=within):
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

    async def _event(self, within: float) -> object:
        event = self._next()
        while event is h11.NEED_DATA:
            try:
                async with asyncio.timeout(within):
                    self._h11.receive_data(await self._reader.read(_READ))
            except TimeoutError as error:
                raise TransportError(f"engine: no answer in {within:g} s") from error
            except OSError as error:
                raise TransportError(f"engine: {error.strerror}") from error
            event = self._next()
        if isinstance(event, h11.ConnectionClosed):
            raise TransportError("engine: it closed the connection")
        return event


def _content_type(response: h11.Response) -> str:
    return next((value.decode("latin-1") for name, value in response.headers if name == b"content-type"), "")
