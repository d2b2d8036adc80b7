"""One client's connection: TLS on top of an asyncio transport, with every buffer and every wait bounded.

A task serves the connection and reads from here. When the client leaves, in whatever way (close_notify, FIN,
reset), the task is cancelled at once: an answer nobody reads must not keep the engine busy. A half-closed client
counts as gone.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, cast

from strongroom.errors import ProtocolError
from strongroom.host.tls import ServerContext, TLSEngine

HANDSHAKE: Final = 10.0  # seconds from accept to Finished
STALL: Final = 60.0  # seconds a client may leave its answer unread
LINGER: Final = 2.0  # seconds to let the last answer be read while a refused body still arrives
HIGH_WATER: Final = 256 * 1024  # bytes waiting in either direction


class Peer(asyncio.Protocol):
    def __init__(
        self,
        context: ServerContext,
        serve: Callable[["Peer"], Awaitable[None]],
        *,
        register: Callable[["Peer"], bool],
        forget: Callable[["Peer"], None],
    ) -> None:
        self.tls = TLSEngine.server(context)
        self.gone = False  # nothing written now reaches anyone
        self.origin = b""  # whom limits hold for: an IPv4 address, or the network of an IPv6 address
        self._busy = False  # a request is being answered
        self._serve, self._register, self._forget = serve, register, forget
        self._inbox = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._discard = self._lost = False
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.origin = _origin(transport.get_extra_info("peername"))
        if not self._register(self):
            self.gone = True
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE, self._transport.abort)
        self._task = loop.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        if self._discard or self.gone:
            return
        try:
            self._inbox += self.tls.feed(data)
        except ProtocolError:
            self._flush()  # the alert
            self._leave()
            return
        self._flush()
        if self.tls.established:
            self._stop_deadline()
        if self.tls.peer_closed or self._transport.get_write_buffer_size() > 4 * HIGH_WATER:
            self._leave()  # the size: of answers to key updates, which nobody reads
        elif len(self._inbox) > HIGH_WATER:
            self._hold_back()
        if self._inbox:
            self._arrived.set()

    def _hold_back(self) -> None:
        if self._busy:
            self._leave()  # while reading is paused we could not see it leave
        else:
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._lost = True
        self._stop_deadline()
        self._leave()
        self._forget(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # the serving task calls these

    @property
    def reachable(self) -> bool:
        return not self.gone and not self._transport.is_closing()

    def answering(self, busy: bool) -> None:
        """Say whether a request is being answered: until then, reading may pause; while it is, we watch it leave."""
        self._busy = busy
        self._transport.resume_reading()

    async def receive(self) -> bytes:
        """Plaintext, at least one byte. Waits as long as the caller lets it."""
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._inbox)
        self._inbox.clear()
        self._transport.resume_reading()
        return data

    def write(self, plaintext: bytes) -> None:
        """Hand bytes to the wire. Pair with drain() unless these are the last."""
        if not self.gone:
            self.tls.send(plaintext)
            self._flush()

    async def drain(self) -> None:
        """Wait until the client has read enough; one that has not within STALL seconds is gone."""
        if self._writable.is_set():
            return
        try:
            async with asyncio.timeout(STALL):
                await self._writable.wait()
        except TimeoutError:
            self._leave()
            self._transport.abort()
            await asyncio.sleep(0)  # where the cancellation arrives

    async def finish(self) -> None:
        """Close politely: a close_notify, then a moment for the client to read before a reset could eat it."""
        self._transport.resume_reading()
        self.tls.close()
        self._flush()
        self._discard = True
        with suppress(OSError):
            self._transport.write_eof()
        await asyncio.sleep(LINGER)

    # the door calls these

    def cut(self) -> None:
        """End this connection now. The serving task may still write its last words while it is cancelled."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def abort(self) -> None:
        self._transport.abort()

    async def _run(self) -> None:
        try:
            await self._serve(self)
        finally:
            self.tls.close()
            self._flush()
            self._transport.close()
            if not self._lost:
                # close() waits for the client to read; a client that never does must not keep us
                self._deadline = asyncio.get_running_loop().call_later(STALL, self._transport.abort)

    def _flush(self) -> None:
        data = self.tls.take()
        if data and not self._discard and not self._transport.is_closing():
            self._transport.write(data)

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            self.cut()
            self._transport.close()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _origin(peername: tuple[str, int] | tuple[str, int, int, int] | None) -> bytes:
    if peername is None:  # it left before we could look
        return b""
    address = ipaddress.ip_address(peername[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return mapped.packed if mapped is not None else address.packed[:8]
    return address.packed
