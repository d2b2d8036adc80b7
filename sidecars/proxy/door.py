"""The door's one life: certify, wait for the engine, open, close. There is no way back from open to waiting.

certified   keys and evidence are made, the agent may go on; nothing listens
open        the engine has answered its canary; clients are served
closed      the engine is gone: listener and connections end at once, and the process with GONE
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

from sidecars.proxy.admin import serve_admin
from sidecars.proxy.canary import wait_for_engine
from sidecars.proxy.certify import make_receipt_identity
from sidecars.proxy.plan import Plan
from sidecars.proxy.service import Service
from sidecars.proxy.serving import converse
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.door.identity import TLSIdentity, keep_fresh, make_tls_identity
from strongroom.host.door.peer import Peer
from strongroom.host.life import beat, running
from strongroom.host.notify import notify, status
from strongroom.wire.canonical import JSON

GONE: Final = 75  # exit code (EX_TEMPFAIL): start me again, the engine has to be found ready anew
MAX_CONNECTIONS: Final = 1024
MAX_EACH: Final = MAX_CONNECTIONS // 2  # from one origin, which may be a gateway that many are behind
LAST_WORDS: Final = 1.0  # seconds for cut answers to reach their clients
BACKLOG: Final = 256
_log: Final = logging.getLogger("strongroom.proxy")


class Door:
    def __init__(self, plan: Plan, *, admin: Path | None = None) -> None:
        self.state = "starting"
        self.port: int | None = None  # where it listens, while it does
        self._plan, self._admin = plan, admin
        self._server: asyncio.Server | None = None
        self._peers: set[Peer] = set()

    async def run(self) -> int:
        """GONE, once the engine is. Every other end is an exception, or a cancellation; the door is closed first."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(beat()))
            service = await self._certify(stack)
            sentinel = await wait_for_engine(self._plan)
            stack.callback(sentinel.close)
            service.engine_sang(sentinel.process, max_model_len=sentinel.max_model_len)
            watches = [
                await stack.enter_async_context(running(sentinel.watch())),
                await stack.enter_async_context(running(_renew(service))),
            ]
            stack.push_async_callback(self._close)
            await self._open(service)
            reason = await _first_failure(watches)
        _log.error("the door is closed: %s", reason)
        return GONE

    async def _certify(self, stack: AsyncExitStack) -> Service:
        now = datetime.now(UTC)
        service = Service(
            self._plan,
            tls=await make_tls_identity(
                evidence_socket=self._plan.evidence_socket, names=self._plan.names, now=now
            ),
            receipts=await make_receipt_identity(self._plan, now=now),
        )
        if self._admin is not None:
            server = await serve_admin(self._admin, partial(self._describe, service))
            stack.callback(server.close)
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
            forget=self._peers.discard,
        )

    def _register(self, peer: Peer) -> bool:
        if len(self._peers) >= MAX_CONNECTIONS or self._server is None:
            return False
        if sum(other.origin == peer.origin for other in self._peers) >= MAX_EACH:
            return False
        self._peers.add(peer)
        return True

    async def _close(self) -> None:
        """Listener first, then every connection; cut answers get LAST_WORDS to say so."""
        self.state, self.port = "closed", None
        if self._server is not None:
            self._server.close()
            self._server = None
        peers = list(self._peers)
        for peer in peers:
            peer.cut()
        notify("STOPPING=1\nSTATUS=closed")
        try:
            async with asyncio.timeout(LAST_WORDS):
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


async def _renew(service: Service) -> NoReturn:
    def replace(identity: TLSIdentity) -> None:
        service.tls = identity

    await keep_fresh(
        service.tls,
        evidence_socket=service.plan.evidence_socket,
        names=service.plan.names,
        replace=replace,
        failed=lambda error: _log.warning("the certificate could not be renewed: %s", error),
    )


async def _first_failure(watches: list[asyncio.Task[NoReturn]]) -> StrongroomError:
    done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
    error = done.pop().exception()
    if isinstance(error, StrongroomError):
        return error
    raise MachineError("door: a watch ended by itself") from error
