"""The receiving door's life: a certificate, providers, one accepted model, and a sentence that says which.

waiting    certified and listening; READY=1
receiving  STATUS says how far
accepted   STATUS=accepted {...}: the agent reads it, stops the unit and mounts the model
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Final, NoReturn

from sidecars.receive.config import ReceiveConfig
from sidecars.receive.conversation import Conversation
from sidecars.receive.intake import Intake
from strongroom.errors import MachineError
from strongroom.host.door.identity import TLSIdentity, keep_fresh, make_tls_identity
from strongroom.host.door.peer import Peer
from strongroom.host.door.turns import Turns
from strongroom.host.life import beat, running
from strongroom.host.notify import notify, status
from strongroom.host.sealed.plain import Entropy
from strongroom.host.secret import Secret
from strongroom.push.answers import ACCEPTED
from strongroom.wire.canonical import pack_json

MAX_CONNECTIONS: Final = 64
MAX_EACH: Final = 32  # from one origin, which may be a gateway that many are behind
BACKLOG: Final = 64
GRACE: Final = 10.0  # seconds for a provider whose connection was cut to come back and hear that all is well
LAST_WORDS: Final = 1.0  # seconds for cut answers to reach their clients
_LOOK: Final = 1.0  # seconds between two sentences of progress
_log: Final = logging.getLogger("strongroom.receive")


class Receiver:
    def __init__(self, config: ReceiveConfig, key: Secret, *, entropy: Entropy) -> None:
        self._config = config
        self._intake = Intake(config, key, entropy=entropy)
        self._turns = Turns()
        self._peers: set[Peer] = set()
        self._identity: TLSIdentity | None = None

    async def run(self) -> NoReturn:
        """Until cancelled: also an accepted model is held on to until the agent has seen it."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(beat()))
            socket, names = self._config.evidence_socket, self._config.names
            self._identity = await make_tls_identity(
                evidence_socket=socket, names=names, now=datetime.now(UTC)
            )
            renewal = keep_fresh(
                self._identity,
                evidence_socket=socket,
                names=names,
                replace=self._renewed,
                failed=lambda error: _log.warning("the certificate could not be renewed: %s", error),
            )
            renewing = await stack.enter_async_context(running(renewal))
            stack.push_async_callback(self._intake.close)
            await stack.enter_async_context(self._listening())
            telling = await stack.enter_async_context(running(self._tell()))
            await asyncio.wait([renewing, telling], return_when=asyncio.FIRST_COMPLETED)
            await (renewing if renewing.done() else telling)
        raise MachineError("receive: a watch ended by itself")

    def _renewed(self, identity: TLSIdentity) -> None:
        self._identity = identity

    async def _tell(self) -> NoReturn:
        """Say how it stands, as often as it changes, until a model is accepted; then that, for good."""
        said = ""
        while not self._intake.accepted.is_set():
            if (sentence := self._intake.sentence) != said:
                status(said := sentence)
            await _first(self._intake.accepted, _LOOK)
        await _first(self._intake.told, GRACE)
        accepted = self._intake.session.accepted
        assert accepted is not None  # the event says so
        status(f"{ACCEPTED}{pack_json(accepted.to_json()).decode()}")
        await asyncio.get_running_loop().create_future()  # until the agent has seen it, and stops us
        raise MachineError("receive: nobody stopped it")

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        host, port = self._config.listen_host, self._config.listen_port
        try:
            server = await asyncio.get_running_loop().create_server(self._peer, host, port, backlog=BACKLOG)
        except OSError as error:
            raise MachineError(f"receive: cannot listen on {host}:{port}: {error.strerror}") from error
        port = server.sockets[0].getsockname()[1]
        _log.info("waiting for a provider on %s port %d", host, port)
        notify(f"READY=1\nSTATUS={self._intake.sentence}")
        try:
            yield
        finally:
            server.close()
            await self._cut()

    async def _cut(self) -> None:
        peers = list(self._peers)
        for peer in peers:
            peer.cut()
        try:
            async with asyncio.timeout(LAST_WORDS):
                await asyncio.gather(*(peer.ended() for peer in peers))
        except TimeoutError:
            pass
        finally:
            for peer in peers:
                peer.abort()

    def _peer(self) -> Peer:
        identity = self._identity  # the one a connection begins with, also after a renewal
        assert identity is not None  # nothing listens before it is there

        async def converse(peer: Peer) -> None:
            await Conversation(self._intake, identity, self._turns, self._config.evidence_socket, peer).run()

        return Peer(identity.context, converse, register=self._register, forget=self._peers.discard)

    def _register(self, peer: Peer) -> bool:
        if len(self._peers) >= MAX_CONNECTIONS:
            return False
        if sum(other.origin == peer.origin for other in self._peers) >= MAX_EACH:
            return False
        self._peers.add(peer)
        return True


async def _first(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or as long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
