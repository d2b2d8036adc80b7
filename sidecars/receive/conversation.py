"""One client's conversation: evidence for whoever asks, everything else for who made an offer we believe.

    GET  /.well-known/strongroom/evidence?nonce=HEX64
    PUT  /v1/push/manifest           Authorization: Strongroom-Push ...
    PUT  /v1/push/content?from=N
    POST /v1/push/finish

A stranger's body is never read. A provider's is, to its end, before a refusal: who is still sending reads no answer.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from sidecars.receive.intake import Intake
from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.binding import EXPORTER_LABEL
from strongroom.host.door.http import Head, ServerHTTP
from strongroom.host.door.identity import TLSIdentity, channel_evidence
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal, bad_request, not_found
from strongroom.host.door.reply import Reply
from strongroom.host.door.turns import Turns
from strongroom.push.answers import (
    CONTENT_PATH,
    FINISH_PATH,
    MANIFEST_PATH,
    MAX_RANGE,
    Accepted,
    pack_accepted,
    pack_next,
)
from strongroom.push.manifest import MAX_BYTES
from strongroom.push.offer import Offer
from strongroom.wire.canonical import pack_json

EVIDENCE_PATH: Final = "/.well-known/strongroom/evidence"
IDLE: Final = 75.0  # seconds a connection may wait for a request's first byte
HEAD: Final = 10.0  # seconds from a request's first byte to the end of its headers
SILENCE: Final = 30.0  # seconds a body may pause
SLOWEST: Final = 32 << 10  # bytes a second below which a sender is cut
_NONCE: Final = re.compile(r"nonce=([0-9a-fA-F]{64})")
_FROM: Final = re.compile(r"from=(0|[1-9][0-9]{0,15})")
_log: Final = logging.getLogger("strongroom.receive")


class Conversation:
    """Everything that is said on one connection. Cancelled when the client leaves."""

    def __init__(
        self, intake: Intake, identity: TLSIdentity, turns: Turns, evidence_socket: Path, peer: Peer
    ) -> None:
        self._intake, self._identity, self._turns, self._peer = intake, identity, turns, peer
        self._evidence_socket = evidence_socket
        self._http = ServerHTTP()
        self._told = False

    async def run(self) -> None:
        """Serve requests until either side has had enough."""
        try:
            await self._serve()
        finally:
            self._intake.left(self._peer)
            if self._told and self._peer.tls.peer_closed:  # a polite end: it has read what we said
                self._intake.told.set()

    async def _serve(self) -> None:
        while await self._begins():
            reply = Reply(self._http, self._peer)
            try:
                await self._request(reply)
            except Refusal as refusal:
                if not reply.status:
                    reply.refuse(refusal)
                await reply.drain()
                if refusal.last:
                    break
            if not self._http.recycle():
                break
            self._peer.answering(False)
        await self._peer.finish()

    async def _begins(self) -> bool:
        """Whether a request begins in time."""
        if self._http.buffered:
            return True
        try:
            async with asyncio.timeout(IDLE):
                self._http.feed(await self._peer.receive())
        except TimeoutError:
            return False
        return True

    async def _request(self, reply: Reply) -> None:
        what = "-"
        try:
            head = await self._head()
            what, answer = await self._route(head)
        except Refusal as refusal:
            _log.info("request %s refused %d %s", what, refusal.status, refusal.code)
            raise
        self._peer.answering(True)
        reply.whole(200, answer)
        await reply.drain()

    async def _head(self) -> Head:
        try:
            async with asyncio.timeout(HEAD):
                while (head := self._http.next_head()) is None:
                    self._http.feed(await self._peer.receive())
        except TimeoutError:
            raise bad_request("the head took too long", code="timeout", status=408) from None
        return head

    async def _route(self, head: Head) -> tuple[str, bytes]:
        path, mark, query = head.target.partition("?")
        match head.method, path:
            case "GET", p if p == EVIDENCE_PATH:
                return "evidence", await self._evidence(query)
            case "PUT", p if p == MANIFEST_PATH and not mark:
                return "manifest", await self._manifest(head)
            case "PUT", p if p == CONTENT_PATH:
                return "content", await self._content(head, query)
            case "POST", p if p == FINISH_PATH and not mark and head.body == "none":
                return "finish", self._accepted(await self._intake.finish(self._peer))
        raise not_found()

    async def _evidence(self, query: str) -> bytes:
        if not (found := _NONCE.fullmatch(query)):
            raise Refusal(400, "bad_nonce", "want ?nonce= and 64 hex digits", param="nonce")
        nonce = bytes.fromhex(found[1])
        exporter = self._peer.tls.exporter(EXPORTER_LABEL, 32, nonce)
        async with self._turns.wait(self._peer.origin):
            try:
                bundle = await channel_evidence(
                    self._evidence_socket, spki=self._identity.spki, nonce=nonce, exporter=exporter
                )
            except StrongroomError as error:
                _log.warning("evidence: %s", error)
                raise Refusal(503, "evidence_unavailable", "no evidence can be had now") from None
        return pack_json({"channel": bundle.to_json()})

    async def _manifest(self, head: Head) -> bytes:
        try:
            offer = Offer.parse(head.headers.get(b"authorization", b"").decode("latin-1"))
        except FormatError as error:
            raise Refusal(401, "offer", str(error), last=True) from None
        try:
            self._intake.offer(self._peer, offer)
        except Refusal as refusal:
            refusal.last = head.body != "none"  # a body nobody may send is not read
            raise
        packed = bytearray()
        async for piece in self._body(head, MAX_BYTES):
            packed += piece
        answer = await self._intake.describe(self._peer, bytes(packed))
        return self._accepted(answer) if isinstance(answer, Accepted) else answer.pack()

    async def _content(self, head: Head, query: str) -> bytes:
        if not (found := _FROM.fullmatch(query)):
            raise Refusal(400, "bad_range", "want ?from= and a whole number", param="from", last=True)
        length = head.headers.get(b"content-length", b"")
        if head.body != "length":
            raise Refusal(411, "length", "want a content-length of at least 1", last=True)
        refused, reached = None, 0
        try:
            await self._intake.check_range(self._peer, int(found[1]), int(length))
        except Refusal as refusal:
            if refusal.code != "range":
                refusal.last = True
                raise
            refused = refusal
        async for piece in self._body(head, MAX_RANGE):
            if refused is None:
                try:
                    reached = await self._intake.take(self._peer, piece)
                except Refusal as refusal:
                    refused = refusal
        if refused is not None:
            raise refused
        return pack_next(reached)

    async def _body(self, head: Head, most: int) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Refusal 408 for a sender that is silent, or too slow altogether."""
        if self._http.expects_continue:
            self._peer.write(self._http.go_on())
        length = int(head.headers.get(b"content-length", b"%d" % most))
        if length > most:
            raise bad_request(f"the body is larger than {most} bytes", code="too_large", status=413)
        loop = asyncio.get_running_loop()
        deadline, received = loop.time() + SILENCE + length / SLOWEST, 0
        while (piece := self._http.next_body()) != b"":
            if piece is not None:
                received += len(piece)
                if received > most:
                    raise bad_request(f"the body is larger than {most} bytes", code="too_large", status=413)
                yield piece
                continue
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + SILENCE)):
                    self._http.feed(await self._peer.receive())
            except TimeoutError:
                raise bad_request("the body took too long", code="timeout", status=408) from None

    def _accepted(self, accepted: Accepted) -> bytes:
        self._told = True
        return pack_accepted(accepted)
