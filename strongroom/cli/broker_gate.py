"""Who may hold a connection to the broker: so many of one network, so many together, decided before any TLS.

Where there are as many as there may be, one gives way to somebody new: first one that is still in its handshake, of
the network with most of those; then one that has been silent for a while, and waits for no answer. Connections that
say nothing keep nobody out, however often they are renewed: a network with more of them than the newcomer's
gives one up at once. A network is an IPv4 address or an IPv6 /64. A peer that reads nothing of its answer is cut off.
"""

import asyncio
import errno
import socket
import ssl
import struct
from asyncio import sslproto
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from strongroom.broker.rate import network_of
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.errors import MachineError

CONNECTIONS: Final = 1024
OF_ADDRESS: Final = 128
HANDSHAKE_TIMEOUT: Final = 10.0  # seconds of TLS
FAREWELL: Final = 2.0  # seconds for the end of TLS
STALLED: Final = 20.0  # seconds in which nothing of an answer was taken
SILENT: Final = 1.0  # seconds after which a connection may give way
BACKLOG: Final = 1024  # connections the kernel keeps for us
_AT_ONCE: Final = 64  # are taken from it before anything else is done
_REST: Final = 0.2  # seconds, where the system has no descriptor for one more
_LINGER: Final = struct.pack("ii", 1, 0)  # closing forgets the connection, and sends a reset
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# What a TLS connection reads into. The library's 256 KiB for each would be what many of them cost.
sslproto.SSLProtocol.max_size = 32 << 10

Factory = Callable[[], asyncio.Protocol]
Cut = Callable[[], object]
"""Cuts a connection off that has no transport yet."""
TurnedAway = Callable[[str, str], None]
"""Told an address, and why it may not connect."""


@dataclass(eq=False, slots=True)
class Place:
    """One connection's."""

    network: str
    heard: float  # when, on the loop's clock; once there is a transport
    cut: Cut
    busy: int = 0  # requests that wait for their answer
    transport: asyncio.Transport | None = None  # once the handshake is over


class Gate:
    """Counts connections. `clock` is the loop's."""

    def __init__(
        self, most: int, of_address: int, turned_away: TurnedAway, clock: Callable[[], float]
    ) -> None:
        self._most, self._of_address = most, of_address
        self._turned_away, self._clock = turned_away, clock
        self._greeted: OrderedDict[Place, None] = OrderedDict()  # in their handshake, longest first
        self._places: OrderedDict[Place, None] = OrderedDict()  # past it, silent for longest first
        self._of_network: Counter[str] = Counter()
        self._by_transport: dict[asyncio.BaseTransport, Place] = {}

    def __len__(self) -> int:
        return len(self._greeted) + len(self._places)

    def enter(self, address: str, cut: Cut) -> Place | None:
        """A place, or None for somebody who has enough of them, or where none is left."""
        network = network_of(address)
        if self._of_network[network] >= self._of_address:
            self._turned_away(address, "too many connections from this address")
            return None
        if len(self) >= self._most and not self._give_way(network):
            self._turned_away(address, "too many connections")
            return None
        place = Place(network, self._clock(), cut)
        self._greeted[place] = None
        self._of_network[network] += 1
        return place

    def connected(self, place: Place, transport: asyncio.Transport) -> None:
        if place not in self._greeted:  # cut off meanwhile
            transport.abort()
            return
        del self._greeted[place]
        place.transport, place.heard = transport, self._clock()
        self._by_transport[transport] = place
        self._places[place] = None

    def heard(self, place: Place) -> None:
        if place in self._places:
            place.heard = self._clock()
            self._places.move_to_end(place)

    def leave(self, place: Place) -> None:
        """At any time, and any number of times."""
        if place.transport is not None:
            self._by_transport.pop(place.transport, None)
        if self._greeted.pop(place, self) is self and self._places.pop(place, self) is self:
            return
        self._of_network[place.network] -= 1
        if not self._of_network[place.network]:
            del self._of_network[place.network]

    @contextmanager
    def busy(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While this lasts the connection gives way to nobody."""
        place = None if transport is None else self._by_transport.get(transport)
        if place is None:
            yield
            return
        place.busy += 1
        try:
            yield
        finally:
            place.busy -= 1
            self.heard(place)

    def _give_way(self, network: str) -> bool:
        """Whether one could be cut off for a newcomer of this network."""
        place = self._in_handshake(network) or self._silent() or self._of_fullest(network)
        if place is None:
            return False
        if place.transport is None:
            place.cut()
        else:
            place.transport.abort()
        self.leave(place)
        return True

    def _in_handshake(self, network: str) -> Place | None:
        """The first of the network with most of them. Bytes of a handshake win it no time."""
        if not self._greeted:
            return None
        fullest = Counter(place.network for place in self._greeted).most_common(1)[0][0]
        place = next(place for place in self._greeted if place.network == fullest)
        late = self._clock() - place.heard >= SILENT
        return place if late or self._has_more(fullest, network) else None

    def _silent(self) -> Place | None:
        """The one that has been silent for longest; those that are busy go to the end of the row."""
        for place in list(islice(self._places, _AT_ONCE)):
            if self._clock() - place.heard < SILENT:
                return None
            if not place.busy:
                return place
            self.heard(place)
        return None

    def _of_fullest(self, network: str) -> Place | None:
        idle = [place for place in self._places if not place.busy]
        if not idle:
            return None
        fullest = Counter(place.network for place in idle).most_common(1)[0][0]
        if not self._has_more(fullest, network):
            return None
        return next(place for place in idle if place.network == fullest)

    def _has_more(self, fullest: str, network: str) -> bool:
        """Whether the one has more places than the other has with its newcomer."""
        return self._of_network[fullest] > self._of_network[network] + 1


class _Held(asyncio.Protocol):
    """A protocol whose connection has a place."""

    def __init__(self, inner: asyncio.Protocol, gate: Gate, place: Place) -> None:
        self._inner, self._gate, self._place = inner, gate, place
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):  # it always is
            self._gate.connected(self._place, transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._gate.heard(self._place)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        transport = self._place.transport
        if transport is not None:
            self._stalled = asyncio.get_running_loop().call_later(STALLED, transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._moving()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._moving()
        self._gate.leave(self._place)
        self._inner.connection_lost(exc)

    def _moving(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class Listener:
    """Listening sockets of ours, and a gate before them. Close it twice if you like."""

    def __init__(self, factory: Factory, gate: Gate, context: ssl.SSLContext | None) -> None:
        self._factory, self._gate, self._context = factory, gate, context
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._greeting: set[asyncio.Task[None]] = set()

    async def listen(self, endpoint: Endpoint) -> int:
        """The port. MachineError where it cannot be listened at."""
        try:
            self._sockets = await _bound(endpoint)
        except (OSError, UnicodeError) as error:  # the latter for a name with an empty or overlong label
            why = (getattr(error, "strerror", None) or "cannot listen").lower()
            raise MachineError(f"{endpoint.host}:{endpoint.port}: {why}") from error
        for one in self._sockets:
            one.setblocking(False)
            self._loop.add_reader(one, self._accept, one)
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Take nobody new, and leave those who are still greeted."""
        for one in self._sockets:
            self._loop.remove_reader(one)
            one.close()
        self._sockets.clear()
        for task in self._greeting:
            task.cancel()
        await asyncio.gather(*self._greeting, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:  # or it would be tried again at once, and again
                    self._loop.remove_reader(listening)
                    self._loop.call_later(_REST, self._resume, listening)
                return
            connection.setblocking(False)
            place = self._gate.enter(str(address[0]), partial(_hang_up, connection))
            if place is None:
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                connection.close()
                continue
            task = self._loop.create_task(self._greet(connection, place))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    async def _greet(self, connection: socket.socket, place: Place) -> None:
        patience: dict[str, Any] = {}
        if self._context is not None:
            patience = {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT, "ssl_shutdown_timeout": FAREWELL}
        held = _Held(self._factory(), self._gate, place)
        try:
            await self._loop.connect_accepted_socket(lambda: held, connection, ssl=self._context, **patience)
        except BaseException as error:
            self._gate.leave(place)
            if not isinstance(error, OSError | TimeoutError):  # it was not TLS, or went away
                raise


def _hang_up(connection: socket.socket) -> None:
    """End what is still greeted: whoever reads from it finds the end, and closes it without waiting for the peer."""
    with suppress(OSError):  # it is over already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        connection.shutdown(socket.SHUT_RDWR)


async def _bound(endpoint: Endpoint) -> list[socket.socket]:
    if endpoint.given is not None:
        return [endpoint.given]
    found = await asyncio.get_running_loop().getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(socket.create_server(address, family=family, backlog=BACKLOG))
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets
