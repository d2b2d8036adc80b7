"""The connections of the local REST: one request each, bounded in number, in bytes and in time."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from guest.coco.rest import MAX_BODY, TEXT, Reply, Rest
from guest.keysock.http import CONTINUE, HTTPError, Parser, Request
from guest.keysock.rights import Caller
from strongroom.errors import StrongroomError

ARRIVAL: Final = 5.0  # seconds for a whole request
DEPARTURE: Final = 10.0  # seconds for a client to take its answer
LINGER: Final = 2.0  # seconds in which what follows a refused request is still taken, and dropped
MAX_OPEN: Final = 256
MAX_OF_ONE: Final = 32  # connections of one caller
_READ: Final = 64 << 10

Who = Callable[[socket.socket], Caller]
"""Tells who made a connection; raises StrongroomError."""


class House:
    """What the connections of both sockets share."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._open: Counter[str] = Counter()
        self._leaving = 0  # turned away, and not gone yet
        self.served = 0

    async def listen(self, listener: socket.socket, who: Who) -> asyncio.Server:
        """Answer on a listening socket until the server is closed."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.set_write_buffer_limits(high=0)
            try:
                await self._one(reader, writer, who)
            except OSError:  # it left, or it does not take its answer: TimeoutError is one
                writer.transport.abort()
            writer.close()

        listener.setblocking(False)
        # Not start_unix_server: from Python 3.13 on that one removes the path it did not make.
        return await asyncio.start_server(connected, sock=listener, limit=_READ)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: Who) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        try:
            caller = who(connection)
        except StrongroomError as error:
            await _refuse(reader, writer, HTTPStatus.FORBIDDEN, str(error))
            return
        if self._open.total() >= MAX_OPEN or self._open[caller.name] >= MAX_OF_ONE:
            await self._turn_away(reader, writer, caller)
            return
        self._open[caller.name] += 1
        try:
            if (request := await _arrived(reader, writer)) is not None:
                await _send(writer, await self._answered(caller, request))
                self.served += 1
        finally:
            self._open[caller.name] -= 1
            self._open += Counter()  # drops those at zero

    async def _turn_away(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> None:
        if self._leaving >= MAX_OPEN:
            writer.transport.abort()
            return
        self._leaving += 1
        try:
            said = f"{caller.name}: too many connections"
            await _refuse(reader, writer, HTTPStatus.SERVICE_UNAVAILABLE, said)
        finally:
            self._leaving -= 1

    async def _answered(self, caller: Caller, request: Request) -> Reply:
        try:
            return await self._rest.answer(caller, request)
        except Exception as error:  # noqa: BLE001  whatever one caller provoked, the others are still answered
            print(f"coco: defect: {type(error).__name__}", flush=True)
            return _said(HTTPStatus.INTERNAL_SERVER_ERROR, "failed: a defect here, told in the journal")


async def _arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The request, or None where there is none and the client was told why."""
    try:
        async with asyncio.timeout(ARRIVAL):
            return await _request(reader, writer)
    except HTTPError as error:
        await _refuse(reader, writer, error.status, str(error))
    except TimeoutError:
        await _refuse(reader, writer, HTTPStatus.REQUEST_TIMEOUT, f"no whole request within {ARRIVAL:g} s")
    return None


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The one request of a connection; None where it ended without one."""
    parser, invited = Parser(), False
    while data := await reader.read(_READ):
        parser.feed(data)
        if (request := parser.next()) is not None:
            return request
        if parser.awaited > MAX_BODY:
            raise HTTPError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is {parser.awaited} bytes, want at most {MAX_BODY}",
            )
        if parser.expects_continue and not invited:
            invited = True
            writer.write(CONTINUE)
    return None


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    head = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\nContent-Type: {reply.type}\r\n"
        f"Content-Length: {len(reply.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("ascii") + reply.body)
    async with asyncio.timeout(DEPARTURE):
        await writer.drain()


async def _refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: HTTPStatus, sentence: str
) -> None:
    """Say why, then read and drop what still comes: a close in its face could eat the answer."""
    await _send(writer, _said(status, sentence))
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await reader.read(_READ):
                pass


def _said(status: HTTPStatus, sentence: str) -> Reply:
    return Reply(status, TEXT, sentence.encode())
