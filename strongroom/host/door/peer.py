"""One client's connection: TLS on top of an asyncio transport, with every buffer and every wait bounded.

A task serves the connection and reads from here. When the client leaves, in whatever way (close_notify, FIN,
reset), the task is cancelled at once: an answer nobody reads must not keep the engine busy. A half-closed client
counts as gone.
"""

import asyncio
import fcntl
import ipaddress
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from struct import Struct
from typing import Final, Protocol, cast

from strongroom.errors import ProtocolError
from strongroom.host.door.waiter import Waiter
from strongroom.host.tls import ServerContext, TLSEngine

HANDSHAKE: Final = 10.0  # seconds from accept to Finished
STALL: Final = 60.0  # seconds in which a client reads PROGRESS of an answer that waits for it
PROGRESS: Final = 16 * 1024  # bytes
LINGER: Final = 2.0  # seconds to let the last answer be read while a refused body still arrives
HIGH_WATER: Final = 256 * 1024  # bytes waiting in either direction
_INT: Final = Struct("=i")


class Source(Protocol):
    """Where an answer comes from as fast as it is read: held while the client reads slower."""

    def hold(self) -> None: ...

    def go_on(self) -> None: ...


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
        self.stalled = False  # it is gone because it did not read
        self.origin = b""  # whom limits hold for: an IPv4 address, or the network of an IPv6 address
        self._busy = False  # a request is being answered
        self._serve, self._register, self._forget = serve, register, forget
        self._inbox: list[bytes] = []
        self._waiting = 0  # bytes in it
        self._waiter = Waiter(asyncio.get_running_loop())
        self._unread: asyncio.TimerHandle | None = (
            None  # runs while the client has more to read than it should
        )
        self._written = self._read = 0  # bytes, and how many of them the client had when that was armed
        self._over = asyncio.Event()  # the connection is lost, or was given back
        self._source: Source | None = None
        self._discard = self._lost = self._held_back = False
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
            plaintext = self.tls.feed(data)
        except ProtocolError:
            self._flush()  # the alert
            self._leave()
            return
        self._flush()
        if self._deadline is not None and self.tls.established:
            self._stop_deadline()
        if plaintext:
            self._inbox.append(plaintext)
            self._waiting += len(plaintext)
        if self.tls.peer_closed or self._transport.get_write_buffer_size() > 4 * HIGH_WATER:
            self._leave()  # the size: of answers to key updates, which nobody reads
        elif self._waiting > HIGH_WATER:
            self._hold_back()
        if plaintext:
            self._waiter.wake()

    def _hold_back(self) -> None:
        if self._busy:
            self._leave()  # while reading is paused we could not see it leave
        elif not self._held_back:
            self._held_back = True
            self._transport.pause_reading()

    def _let_in(self) -> None:
        if self._held_back:
            self._held_back = False
            self._transport.resume_reading()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._lost = True
        self._over.set()
        self._stop_deadline()
        self._read_on()
        self._waiter.close()
        self._leave()
        self._forget(self)

    def pause_writing(self) -> None:
        self._await_reading()
        if self._source is not None:
            self._source.hold()

    def resume_writing(self) -> None:
        self._read_on()
        self._waiter.wake()
        if self._source is not None:
            self._source.go_on()

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_reading(self) -> None:
        self._read = self._arrived()
        self._unread = asyncio.get_running_loop().call_later(STALL, self._give_up)

    def _give_up(self) -> None:
        """Unless it reads, if slowly: nobody's link is as fast as the engine."""
        if self._arrived() >= self._read + PROGRESS:
            self._await_reading()
            return
        self.stalled = True
        self._leave()
        self._transport.abort()

    def _arrived(self) -> int:
        """Bytes of what was written that reached the client's machine."""
        waiting = self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):  # what the kernel holds is megabytes on a fast link: it moves in strides
                found = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
                waiting += int(_INT.unpack(found)[0])
        return self._written - waiting

    # the serving task calls these

    @property
    def reachable(self) -> bool:
        return not self.gone and not self._transport.is_closing()

    @property
    def congested(self) -> bool:
        """Whether more is written than the client has read for now."""
        return self._unread is not None

    def answering(self, busy: bool) -> None:
        """Say whether a request is being answered: until then, reading may pause; while it is, we watch it leave."""
        self._busy = busy
        self._let_in()

    async def receive(self, within: float | None = None) -> bytes:
        """Plaintext, at least one byte; TimeoutError when there is none `within` seconds."""
        while not self._inbox:
            await self._waiter.wait(within)
        inbox = self._inbox
        data = inbox[0] if len(inbox) == 1 else b"".join(inbox)
        inbox.clear()
        self._waiting = 0
        self._let_in()
        return data

    def write(self, plaintext: bytes) -> None:
        """Hand bytes to the wire. Pair with drain() unless these are the last."""
        if not self.gone:
            self.tls.send(plaintext)
            self._flush()

    def draws(self, source: Source | None) -> None:
        """Name what is to be held while this client does not read; None once nothing more comes from there."""
        self._source = source
        if source is not None and self._unread is not None:
            source.hold()

    async def drain(self) -> None:
        """Wait until the client has read enough; one that reads nothing for STALL seconds is gone."""
        while self._unread is not None:
            await self._waiter.wait()

    async def finish(self) -> None:
        """Close politely: a close_notify, then a moment for the client to read before a reset could eat it."""
        self._let_in()
        self.tls.close()
        self._flush()
        self._discard = True
        with suppress(OSError, RuntimeError):  # uvloop raises the second for a transport that ends
            self._transport.write_eof()
        await asyncio.sleep(LINGER)

    # the door calls these

    def cut(self) -> None:
        """End this connection now. The serving task may still write its last words while it is cancelled."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it is served no more and everything written was handed to the kernel, or is lost."""
        if self._task is not None:
            await asyncio.wait([self._task])
            await self._over.wait()

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
            self._written += len(data)
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
