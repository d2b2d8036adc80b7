"""One client's conversation: requests read one after another, each sent where it belongs and answered.

Order matters for strangers: route, then token, and only then is a body read; a place at the engine is for whoever has
asked something whole.
"""

import asyncio
import secrets
from typing import Final

from sidecars.proxy.completions import complete
from sidecars.proxy.face.answers import Asking, answer
from sidecars.proxy.intake import Reading
from sidecars.proxy.plan import Tenant
from sidecars.proxy.routes import Destination, Route, destination
from sidecars.proxy.sealed import REQUEST_TYPE, Opened
from sidecars.proxy.service import Service
from strongroom.evidence.binding import EXPORTER_LABEL
from strongroom.host.door.http import Head, ServerHTTP
from strongroom.host.door.identity import TLSIdentity
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal, bad_request, not_found
from strongroom.host.door.reply import Reply

IDLE: Final = 75.0  # seconds a connection may wait for a request's first byte
HEAD: Final = 10.0  # seconds from a request's first byte to the end of its headers
BODY: Final = 30.0  # seconds for a body
_JSON: Final = b"application/json"


async def converse(service: Service, identity: TLSIdentity, peer: Peer) -> None:
    """Serve one connection until either side has had enough. Cancelled when the client leaves."""
    await _Conversation(service, identity, peer).run()


class _Conversation:
    def __init__(self, service: Service, identity: TLSIdentity, peer: Peer) -> None:
        self._service, self._identity, self._peer = service, identity, peer
        self._http = ServerHTTP()
        self._loop = asyncio.get_running_loop()
        self._certificate: bytes | None = None  # that the client showed

    async def run(self) -> None:
        http, peer = self._http, self._peer
        while await self._begins():
            reply = Reply(http, peer)
            try:
                await self._request(reply)
            except Refusal as refusal:
                if not reply.status:
                    reply.refuse(refusal)
                await reply.drain()
                if refusal.last:
                    break
            if not http.recycle():
                break
            peer.answering(False)
            if http.buffered:
                await asyncio.sleep(0)  # requests that came together must not keep the others' waiting
        await peer.finish()

    async def _begins(self) -> bool:
        """Whether a request begins in time."""
        if self._http.buffered:
            return True
        try:
            self._http.feed(await self._peer.receive(IDLE))
        except TimeoutError:
            return False
        return True

    async def _request(self, reply: Reply) -> None:
        service = self._service
        request, method, route, status = secrets.token_hex(16), "-", "-", 0
        try:
            head = self._http.next_head() or await self._rest_of_head()
            to = destination(head.method, head.target)
            method, route = head.method, to.route
            if to.route is Route.SEALED:
                await self._sealed(head, reply, request)
            else:
                await self._answer(head, to, reply, request)
            status = reply.status
        except Refusal as refusal:
            status = refusal.status
            service.diary.note(f"request {request} {method} {route} refused {status} {refusal.code}")
            raise
        except asyncio.CancelledError:
            service.diary.note(f"request {request} {method} {route} cut")
            raise
        finally:
            service.metrics.requested(route, status)
        service.diary.note(f"request {request} {method} {route} answered {status}")

    async def _answer(
        self,
        head: Head,
        to: Destination,
        reply: Reply,
        request: str,
        sealed: tuple[Opened, Reading] | None = None,
    ) -> None:
        """`sealed` is where the request was inside another: its body was read, and no connection speaks for it."""
        service = self._service
        tenant = None if to.route.open else self._admit(head, sealed=sealed is not None)
        if not service.serves(to.route):
            raise not_found()
        service.requests += 1
        if sealed is not None:
            opened, inside = sealed
            inside.fill(opened.take())
            inside.admit()
        if not to.route.completes or tenant is None:
            await self._get(head, to, tenant, reply)
        elif sealed is not None:
            await self._complete(tenant, to.route, sealed[1], reply, request)
        else:
            service.gateway.require_open()
            with service.intake.reading(self._peer.origin, known=True) as reading:
                await self._body(head, reading)
                await self._complete(tenant, to.route, reading, reply, request)

    async def _complete(
        self, tenant: Tenant, route: Route, reading: Reading, reply: Reply, request: str
    ) -> None:
        self._peer.answering(True)
        with self._service.gateway.exchange():
            await complete(self._service, tenant, route, reading, reply, id=request)

    async def _sealed(self, head: Head, reply: Reply, request: str) -> None:
        sealed = self._service.sealed
        with self._service.intake.reading(self._peer.origin, known=False) as reading:
            await self._body(head, reading, REQUEST_TYPE)
            opened = await sealed.open(reading.take())
            async with sealed.answering(opened, self._http, self._peer, reply) as inner:
                await self._answer(opened.head, opened.destination(), inner, request, (opened, reading))

    async def _rest_of_head(self) -> Head:
        until = self._loop.time() + HEAD
        try:
            while True:
                self._http.feed(await self._peer.receive(until - self._loop.time()))
                if (head := self._http.next_head()) is not None:
                    return head
        except TimeoutError:
            raise bad_request("the head took too long", code="timeout", status=408) from None

    def _admit(self, head: Head, *, sealed: bool) -> Tenant:
        if self._certificate is None and self._service.plan.certificates:
            self._certificate = self._peer.tls.peer_certificate_der
        shown = None if sealed else self._certificate  # whoever ends the TLS may have one of their own
        return self._service.admission.admit(head.headers.get(b"authorization"), shown)

    async def _body(self, head: Head, reading: Reading, wanted: bytes = _JSON) -> None:
        kind = head.headers.get(b"content-type", b"")
        if kind != wanted and kind.partition(b";")[0].strip().lower() != wanted:
            raise Refusal(415, "content_type", f"want content-type {wanted.decode()}")
        http, peer = self._http, self._peer
        if http.expects_continue:
            peer.write(http.go_on())
        pieces, came = list[bytes](), 0
        until = 0.0
        try:
            while (piece := http.next_body()) != b"":
                if piece is not None:
                    pieces.append(piece)
                    came += len(piece)
                    continue
                reading.await_more(came)
                until = until or self._loop.time() + BODY
                http.feed(await peer.receive(until - self._loop.time()))
        except TimeoutError:
            raise bad_request("the body took too long", code="timeout", status=408) from None
        reading.fill(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    async def _get(self, head: Head, to: Destination, tenant: Tenant | None, reply: Reply) -> None:
        if head.body != "none":
            raise bad_request("this request takes no body")
        peer = self._peer
        peer.answering(True)
        asking = Asking(
            origin=peer.origin,
            identity=self._identity,
            exporter=lambda nonce: peer.tls.exporter(EXPORTER_LABEL, 32, nonce),
            tenant=tenant,
        )
        found = await answer(self._service, to, asking)
        reply.whole(found.status, found.body, found.headers.items(), content_type=found.content_type)
        await reply.drain()
