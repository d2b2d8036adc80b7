"""One client's conversation: requests read one after another, each sent where it belongs and answered.

Order matters for strangers: route, then token, then place, and only then is a body read.
"""

import asyncio
import logging
import secrets
from dataclasses import replace
from typing import Final

from sidecars.proxy.completions import complete
from sidecars.proxy.plan import Tenant
from sidecars.proxy.routes import Destination, Route, destination
from sidecars.proxy.service import Service
from strongroom.errors import StrongroomError
from strongroom.evidence.binding import EXPORTER_LABEL
from strongroom.host.door.http import Head, ServerHTTP
from strongroom.host.door.identity import TLSIdentity, channel_evidence
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal, bad_request, not_found
from strongroom.host.door.reply import Reply
from strongroom.receipts import envelope
from strongroom.wire.canonical import JSON, b64u, pack_json

IDLE: Final = 75.0  # seconds a connection may wait for a request's first byte
HEAD: Final = 10.0  # seconds from a request's first byte to the end of its headers
BODY: Final = 30.0  # seconds for a body
_log: Final = logging.getLogger("strongroom.proxy")


async def converse(service: Service, identity: TLSIdentity, peer: Peer) -> None:
    """Serve one connection until either side has had enough. Cancelled when the client leaves."""
    http = ServerHTTP()
    while await _waits(http, peer):
        reply = Reply(http, peer)
        try:
            await _request(service, identity, http, peer, reply)
        except Refusal as refusal:
            if not reply.status:
                reply.refuse(refusal)
            await reply.drain()
            if refusal.last:
                break
        if not http.recycle():
            break
        peer.answering(False)
        await asyncio.sleep(0)  # requests that came together must not keep the others' waiting
    await peer.finish()


async def _waits(http: ServerHTTP, peer: Peer) -> bool:
    """Whether a request begins in time."""
    if http.buffered:
        return True
    try:
        async with asyncio.timeout(IDLE):
            http.feed(await peer.receive())
    except TimeoutError:
        return False
    return True


async def _request(
    service: Service, identity: TLSIdentity, http: ServerHTTP, peer: Peer, reply: Reply
) -> None:
    request_id, what = secrets.token_hex(16), "-"
    try:
        head = await _read_head(http, peer)
        to = destination(head.method, head.target)
        what = f"{head.method} {to.route}"
        tenant = None if to.route.open else service.gate.admit(head.headers.get(b"authorization"))
        service.requests += 1
        if to.route.completes and tenant is not None:
            with service.gate.entered(tenant):
                body = await _read_body(head, http, peer)
                peer.answering(True)
                await complete(service, tenant, to.route, body, reply, id=request_id)
        elif head.body != "none":
            raise bad_request("this request takes no body")
        else:
            peer.answering(True)
            await _get(service, identity, to, tenant, peer, reply)
    except Refusal as refusal:
        _log.info("request %s %s refused %d %s", request_id, what, refusal.status, refusal.code)
        raise
    except asyncio.CancelledError:
        _log.info("request %s %s cut", request_id, what)
        raise
    _log.info("request %s %s answered %d", request_id, what, reply.status)


async def _read_head(http: ServerHTTP, peer: Peer) -> Head:
    try:
        async with asyncio.timeout(HEAD):
            while (head := http.next_head()) is None:
                http.feed(await peer.receive())
    except TimeoutError:
        raise bad_request("the head took too long", code="timeout", status=408) from None
    return head


async def _read_body(head: Head, http: ServerHTTP, peer: Peer) -> bytes:
    kind = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(415, "content_type", "want content-type application/json")
    if http.expects_continue:
        peer.write(http.go_on())
    body = bytearray()
    try:
        async with asyncio.timeout(BODY):
            while (piece := http.next_body()) != b"":
                if piece is None:
                    http.feed(await peer.receive())
                else:
                    body += piece
    except TimeoutError:
        raise bad_request("the body took too long", code="timeout", status=408) from None
    return bytes(body)


async def _get(
    service: Service, identity: TLSIdentity, to: Destination, tenant: Tenant | None, peer: Peer, reply: Reply
) -> None:
    match to.route:
        case Route.HEALTH:
            reply.whole(200, b'{"status":"open"}')
        case Route.MODELS:
            reply.whole(200, pack_json(_models(service)))
        case Route.EVIDENCE:
            reply.whole(200, pack_json(await _evidence(service, identity, peer, to.nonce)))
        case Route.RECEIPT if tenant is not None:
            reply.whole(200, _receipt(service, tenant, to.receipt))
        case _:
            raise not_found()
    await reply.drain()


def _models(service: Service) -> JSON:
    """Made here, not asked for: the engine's own list shows paths."""
    model: dict[str, JSON] = {
        "id": service.plan.model.name,
        "object": "model",
        "created": int(service.receipts.not_before.timestamp()),
        "owned_by": "strongroom",
    }
    if service.max_model_len is not None:
        model["max_model_len"] = service.max_model_len
    return {"object": "list", "data": [model]}


async def _evidence(service: Service, identity: TLSIdentity, peer: Peer, nonce: bytes) -> JSON:
    exporter = peer.tls.exporter(EXPORTER_LABEL, 32, nonce)
    async with service.turns.wait(peer.origin):
        try:
            channel = await channel_evidence(
                service.plan.evidence_socket, spki=identity.spki, nonce=nonce, exporter=exporter
            )
        except StrongroomError as error:
            _log.warning("evidence: %s", error)
            raise Refusal(503, "evidence_unavailable", "no evidence can be had now") from None
    signer, service.collateral = service.receipts, channel.collateral
    return {
        "channel": channel.to_json(),
        "receipt_key": {
            "key": b64u(signer.spki),
            "not_before": int(signer.not_before.timestamp()),
            "bundle": signer.evidence.bare.to_json(),  # of the same machine: the channel's collateral serves both
        },
    }


def _receipt(service: Service, tenant: Tenant, id: str) -> bytes:
    signed = service.find(tenant, id)
    if signed is None:
        raise not_found()
    signer = service.receipts
    evidence = replace(signer.evidence, collateral=service.collateral)
    return envelope.pack(signed, not_before=signer.not_before, evidence=evidence)
