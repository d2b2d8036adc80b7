"""HTTP/1.1 in the clear for clients on this machine, and for nobody else.

Every program of this machine can connect to a loopback port, a browser's pages among them. So a page is refused by the
Origin that its browser sends, or by its word that another site asks, and by a Host that is no loopback name; bodies are
JSON, which no page may send elsewhere without asking first; and no answer is ever taken for a script or a page.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import suppress
from typing import Any, Final

from strongroom.errors import ConfigError, MachineError, StrongroomError, TransportError
from strongroom.host.door.http import Head, ServerHTTP
from strongroom.host.door.refusal import Refusal, bad_request, not_found
from strongroom.host.relay.carrying import Asked, Carrying, Sink

MAX_CONNECTIONS: Final = 256
IDLE: Final = 300.0  # seconds a local client may keep a connection without a request
SLOW: Final = 60.0  # seconds for a request that has begun
STALL: Final = 300.0  # seconds a local client may leave its answer unread
LINGER: Final = 1.0  # seconds
_READ: Final = 64 << 10
_LISTEN: Final = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([0-9.]+|localhost)):([0-9]{1,5})")
_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SITES: Final = frozenset({b"none", b"same-origin"})  # an address that a person typed, and what belongs to it
_NO_SNIFFING: Final = ("x-content-type-options", "nosniff")
_PATHS: Final = "/v1/"
_METHODS: Final = frozenset({"GET", "POST"})
_BEARER: Final = re.compile(rb"(?i:bearer) ([!-~]{1,4096})")

Carry = Callable[[Asked], Carrying]
Failed = Callable[[StrongroomError], None]


def parse_listen(text: str) -> tuple[str, int]:
    """Address and port of 127.0.0.1:8000 or [::1]:8000; ConfigError for what is not loopback."""
    found = _LISTEN.fullmatch(text)
    host = (found[1] or found[2]).replace("localhost", "127.0.0.1") if found else ""
    port = int(found[3]) if found else -1
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback and 0 <= port <= 65535:
            return host, port
    raise ConfigError(f"--listen: got {text!r}, want a loopback address and a port, as 127.0.0.1:8000")


class Listener:
    """Answers local clients until it is closed. `carry` is asked for each request, `failed` is told what went wrong."""

    def __init__(self, carry: Carry, *, failed: Failed, executor: Executor, token: str | None = None) -> None:
        self._carry, self._failed, self._executor, self._token = carry, failed, executor, token
        self._server: asyncio.Server | None = None
        self._names = _NAMES
        self._conversations = set[asyncio.Task[None]]()

    async def open(self, host: str, port: int) -> int:
        """The port it listens on."""
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=_READ)
        except OSError as error:
            raise MachineError(f"--listen: {host}:{port}: {(error.strerror or 'failed').lower()}") from error
        self._names = _NAMES | {f"[{host.lower()}]" if ":" in host else host}
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listener first, then every conversation."""
        if self._server is not None:
            self._server.close()
        for each in self._conversations:
            each.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._conversations) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._conversations.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TransportError, TimeoutError):
            pass  # it left
        except asyncio.CancelledError:
            if self._server is not None and self._server.is_serving():
                raise
        finally:
            self._conversations.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http, begun = ServerHTTP(), True
        while begun:
            try:
                asked = await self._asked(http, reader, writer)
                if asked is None:
                    return
                await self._answer(self._carry(asked), http, reader, writer)
            except Refusal as refusal:
                kind = ("content-type", "application/json")
                _write_whole(http, writer, refusal.status, [kind, *refusal.headers.items()], refusal.body())
                if refusal.last:
                    begun = False
            await writer.drain()
            begun = begun and http.recycle()
        await _finish(reader, writer)

    async def _asked(
        self, http: ServerHTTP, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Asked | None:
        if not http.buffered and not await _feed(http, reader, IDLE):
            return None
        while (head := http.next_head()) is None:
            if not await _feed(http, reader, SLOW):
                return None
        _require_local(head, self._names)
        if head.method not in _METHODS:
            raise Refusal(405, "method_not_allowed", "want GET or POST")
        if not head.target.startswith(_PATHS):
            raise not_found()
        if http.expects_continue:
            writer.write(http.go_on())
        body = bytearray()
        while (piece := http.next_body()) != b"":
            if piece is not None:
                body += piece
            elif not await _feed(http, reader, SLOW):
                return None
        if head.method == "GET" and body:
            raise bad_request("a GET takes no body here")
        token = self._token if self._token is not None else _token(head)
        return Asked(method=head.method, target=head.target, token=token, body=bytes(body))

    async def _answer(
        self, carrying: Carrying, http: ServerHTTP, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        sink = _LoopSink(loop, http, writer)
        work = loop.run_in_executor(self._executor, carrying.run, sink)
        watch = asyncio.create_task(_leaves(http, reader))
        try:
            either: set[asyncio.Future[Any]] = {work, watch}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if left := not work.done():
                carrying.cancel()
            if (error := await work) is not None and not left and not sink.left:
                self._failed(error)  # the server's fault, and no consequence of the client's leaving
        except asyncio.CancelledError:
            sink.left = True
            carrying.cancel()
            await asyncio.wait([work])  # it writes into this loop: it ends first
            raise
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        if sink.left or (watch.done() and not watch.cancelled()):
            raise TransportError("connect: the local client left")


class _LoopSink(Sink):
    """Writes from a thread into the loop's connection, and waits there for room."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, http: ServerHTTP, writer: asyncio.StreamWriter
    ) -> None:
        self._loop, self._http, self._writer = loop, http, writer
        self.left = False

    def whole(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self._do(lambda: _write_whole(self._http, self._writer, status, headers, body))

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._do(lambda: self._writer.write(self._http.start(status, [*headers, _NO_SNIFFING], length=None)))

    def send(self, data: bytes) -> None:
        self._do(lambda: self._writer.write(self._http.data(data)))

    def end(self) -> None:
        self._do(lambda: self._writer.write(self._http.end()))

    def _do(self, write: Callable[[], None]) -> None:
        async def work() -> None:
            write()
            async with asyncio.timeout(STALL):
                await self._writer.drain()

        if self.left:
            raise TransportError("connect: the local client left")
        try:
            asyncio.run_coroutine_threadsafe(work(), self._loop).result(STALL + 10)
        except (OSError, TimeoutError, CancelledError) as error:
            self.left = True
            raise TransportError("connect: the local client left") from error


def _write_whole(
    http: ServerHTTP,
    writer: asyncio.StreamWriter,
    status: int,
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> None:
    head = http.start(status, [*headers, _NO_SNIFFING], length=len(body))
    writer.write(head + http.data(body) + http.end())


async def _feed(http: ServerHTTP, reader: asyncio.StreamReader, within: float) -> bool:
    """Whether more came."""
    async with asyncio.timeout(within):
        data = await reader.read(_READ)
    if data:
        http.feed(data)
    return bool(data)


async def _finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the last answer be read before a reset could eat it: what still comes is thrown away for a moment."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await reader.read(_READ):
                pass


async def _leaves(http: ServerHTTP, reader: asyncio.StreamReader) -> None:
    """Return once the client has left, or sends more than a next request while it waits for an answer."""
    with suppress(OSError):
        while http.buffered < _READ and (data := await reader.read(_READ)):
            http.feed(data)


def _require_local(head: Head, names: frozenset[str]) -> None:
    if b"origin" in head.headers or head.headers.get(b"sec-fetch-site", b"none") not in _SITES:
        raise Refusal(403, "browser", "pages in a browser are not served here", last=True)
    host = head.headers[b"host"].decode("latin-1")
    if re.sub(r":[0-9]*$", "", host.lower()) not in names:
        raise Refusal(403, "host", "want a Host that is a loopback name", last=True)
    kind = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if head.body != "none" and kind != b"application/json":
        raise Refusal(415, "content_type", "want content-type application/json", last=True)


def _token(head: Head) -> str | None:
    if (said := head.headers.get(b"authorization")) is None:
        return None
    if (found := _BEARER.fullmatch(said)) is None:
        raise Refusal(401, "unauthorized", "want authorization: Bearer and a token", last=True)
    return found[1].decode("ascii")


async def serve(
    listener: Listener, host: str, port: int, *, ready: Callable[[int], None], until: Awaitable[object]
) -> None:
    """Listen from `ready`, which gets the port, until `until` is over."""
    try:
        ready(await listener.open(host, port))
        await until
    finally:
        await listener.close()
