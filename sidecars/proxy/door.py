"""The door's one life: certify, wait for the engine, open, close. There is no way back from open to waiting.

certified   keys and evidence are made, the agent may go on; nothing listens
open        the engine has answered its canary; clients are served
draining    told to stop: no new request reaches the engine, those that run may finish
closed      the engine is gone, or wrong: listener and connections end at once, and the process with GONE
"""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

from sidecars.proxy.admin import serve_admin, serve_metrics
from sidecars.proxy.certify import make_receipt_identity, watch_clock
from sidecars.proxy.engine.canary import wait_for_engine
from sidecars.proxy.engine.drain import DEADLINE, State
from sidecars.proxy.engine.song import Songbook
from sidecars.proxy.metrics import Now
from sidecars.proxy.plan import Plan
from sidecars.proxy.receipts.book import Book
from sidecars.proxy.service import Service
from sidecars.proxy.serving import converse
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.door.identity import keep_fresh, make_tls_identity
from strongroom.host.door.peer import Peer
from strongroom.host.life import beat, running
from strongroom.host.notify import notify, status
from strongroom.receipts.keys import DoorKeys
from strongroom.wire.canonical import JSON

GONE: Final = 75  # exit code (EX_TEMPFAIL): start me again, the engine has to be found ready anew
MAX_CONNECTIONS: Final = 1024
MAX_EACH: Final = MAX_CONNECTIONS // 2  # from one origin, which may be a gateway that many are behind
LAST_WORDS: Final = (
    1.0  # seconds for cut answers to reach their clients; finished ones have all that a drain leaves
)
BACKLOG: Final = 256
_ADMIN: Final = "admin.sock"  # in the runtime directory
_CANARY: Final = "canary"
_log: Final = logging.getLogger("strongroom.proxy")


class Door:
    """`directory` is the process's own, kept for as long as the boot: without one nothing outlives the process."""

    def __init__(self, plan: Plan, keys: DoorKeys, *, directory: Path | None = None) -> None:
        self.state = "starting"
        self.port: int | None = None  # where it listens, while it does
        self._plan, self._keys, self._directory = plan, keys, directory
        self._server: asyncio.Server | None = None
        self._service: Service | None = None
        self._peers: set[Peer] = set()
        self._origins = Counter[bytes]()
        self._patience = 0.0  # loop.time() until which finished answers may still be read

    async def run(self) -> int:
        """GONE, once the engine is. Every other end is an exception, or a cancellation; the door is closed first."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(beat()))
            service = await self._certify(stack)
            songs = Songbook(self._directory / _CANARY if self._directory is not None else None)
            sentinel = await wait_for_engine(self._plan, songs, progress=lambda: service.last_token)
            stack.callback(sentinel.close)
            service.open(sentinel.process, served=sentinel.served, max_model_len=sentinel.max_model_len)
            watches = [
                await stack.enter_async_context(running(watch))
                for watch in (
                    sentinel.watch(),
                    sentinel.sing(self._plan.canary.every_s),
                    service.alarm.wait(),
                    _renew(service),
                    watch_clock(service.book.identity),
                )
            ]
            stack.push_async_callback(self._close)
            await self._open(service)
            reason = await _first_failure(watches)
            self._patience = 0.0
        _log.error("the door is closed: %s", reason)
        return GONE

    async def drain(self) -> None:
        """Let nobody new in, and wait for those inside, but not for ever."""
        if self._service is not None and self._service.gateway.state is State.OPEN:
            self.state = "draining"
            self._patience = asyncio.get_running_loop().time() + DEADLINE
            self._service.admission.drain()
            try:
                await self._service.gateway.drain(DEADLINE)
            except asyncio.CancelledError:  # told twice
                self._patience = 0.0
                raise

    async def _certify(self, stack: AsyncExitStack) -> Service:
        now, plan = datetime.now(UTC), self._plan
        identity = await make_receipt_identity(plan, self._keys, now=now, directory=self._directory)
        service = Service(
            plan,
            tls=await make_tls_identity(
                evidence_socket=plan.evidence_socket, names=plan.names, now=now, clients=plan.certificates
            ),
            book=Book(plan, self._keys, identity, directory=self._directory),
        )
        stack.callback(service.close)
        self._service = service
        metrics = partial(self._measured, service)
        if self._directory is not None:
            state = partial(self._describe, service)
            admin = await serve_admin(self._directory / _ADMIN, state, metrics)
            stack.callback(admin.close)
        if plan.metrics.port is not None:
            stack.callback((await serve_metrics(plan.metrics.port, metrics)).close)
        self.state = "certified"
        notify("READY=1\nSTATUS=certified: the door stays closed until the engine answers")
        return service

    async def _open(self, service: Service) -> None:
        plan = self._plan
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: self._peer(service), plan.listen_host, plan.listen_port, backlog=BACKLOG
            )
        except OSError as error:
            where = f"{plan.listen_host}:{plan.listen_port}"
            raise MachineError(f"door: cannot listen on {where}: {error.strerror}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        self.state = "open"
        status("open")
        _log.info("the door is open on %s port %d", plan.listen_host, self.port)

    def _peer(self, service: Service) -> Peer:
        identity = service.tls  # the one a connection began with, also after a renewal
        return Peer(
            identity.context,
            partial(converse, service, identity),
            register=self._register,
            forget=self._forget,
        )

    def _register(self, peer: Peer) -> bool:
        if len(self._peers) >= MAX_CONNECTIONS or self._server is None:
            return False
        if self._origins[peer.origin] >= MAX_EACH:
            return False
        self._peers.add(peer)
        self._origins[peer.origin] += 1
        return True

    def _forget(self, peer: Peer) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            self._origins[peer.origin] -= 1
            if not self._origins[peer.origin]:
                del self._origins[peer.origin]

    async def _close(self) -> None:
        """Listener first, then every connection. What was written before may still be read, for a while."""
        self.state, self.port = "closed", None
        if self._service is not None:
            self._service.gateway.close()
        if self._server is not None:
            self._server.close()
            self._server = None
        peers = list(self._peers)
        for peer in peers:
            peer.cut()
        notify("STOPPING=1\nSTATUS=closed")
        try:
            left = self._patience - asyncio.get_running_loop().time()
            async with asyncio.timeout(max(LAST_WORDS, left)):
                await asyncio.gather(*(peer.ended() for peer in peers))
        except TimeoutError:
            pass
        finally:
            for peer in peers:
                peer.abort()

    def _describe(self, service: Service) -> JSON:
        return {
            "state": self.state,
            "spki_sha256": sha256(service.tls.spki).hexdigest(),
            "certificate_sha256": sha256(service.tls.certificate).hexdigest(),
            "requests": service.requests,
        }

    def _measured(self, service: Service) -> bytes:
        age = datetime.now(UTC) - service.tls.not_before
        now = Now(
            state=self.state,
            connections=len(self._peers),
            admission=service.admission,
            evidence_age=age.total_seconds(),
        )
        return service.metrics.render(now)


async def _renew(service: Service) -> NoReturn:
    await keep_fresh(
        service.tls,
        evidence_socket=service.plan.evidence_socket,
        names=service.plan.names,
        replace=service.use_tls,
        failed=lambda error: _log.warning("the certificate could not be renewed: %s", error),
        clients=service.plan.certificates,
    )


async def _first_failure(watches: list[asyncio.Task[NoReturn]]) -> StrongroomError:
    done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
    error = done.pop().exception()
    if isinstance(error, StrongroomError):
        return error
    raise MachineError("door: a watch ended by itself") from error
