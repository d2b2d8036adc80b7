"""Sealed bodies: a request that was sealed to this door's key, answered as any other, its answer sealed for who asked.

key     made of the boot's secret and of what is random in this process: what was sealed to an earlier door of this boot
        opens nowhere, so a request is taken once, although what was taken is remembered in this process alone
open    what is inside, or a refusal in the clear that says nothing of it
inside  route, tenant, limits, fields and receipt as in the clear; a request counts as taken once its tenant is known

Inside are requests of tenants only: nothing that speaks of the connection, which is another's, and no second seal.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sidecars.proxy.certify import ReceiptIdentity
from sidecars.proxy.routes import Destination, destination
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.host.door.http import Head, ServerHTTP
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal, not_found
from strongroom.host.door.reply import JSON_TYPE, Reply
from strongroom.host.evidence import request_evidence
from strongroom.sealedhttp import request as sealed_request
from strongroom.sealedhttp.keys import OpeningKey
from strongroom.sealedhttp.replay import WINDOW, Replays
from strongroom.sealedhttp.request import Request
from strongroom.sealedhttp.response import CONTENT_TYPE, NONCE, Sealer
from strongroom.wire.canonical import JSON, b64u

REQUEST_TYPE: Final = sealed_request.CONTENT_TYPE.encode()
_LARGE: Final = 256 * 1024  # bytes from which on opening it would keep others waiting
_OUTSIDE: Final = (("x-accel-buffering", "no"),)  # for whoever carries it


@dataclass(slots=True)
class Opened:
    """A request that was inside. Nobody has looked yet whose it is, nor whether it was taken before."""

    request: Request
    digest: bytes = field(repr=False)
    _replays: Replays = field(repr=False)
    _now: int = field(repr=False)

    @property
    def head(self) -> Head:
        """As that of a request in the clear."""
        headers = {b"content-type": b"application/json"}
        if self.request.token:
            headers[b"authorization"] = b"Bearer " + self.request.token.encode("ascii")
        body = self.request.body
        return Head(self.request.method.name, self.request.target, headers, "length" if body else "none")

    def destination(self) -> Destination:
        """Where it goes. Refusals as of destination(), and 404 for what has no place in a sealed request."""
        to = destination(self.request.method.name, self.request.target)
        if to.route.open:
            raise not_found()
        return to

    def take(self) -> bytes:
        """Its body, once: Refusal 409 when it was taken before, 503 when that could not be remembered."""
        if self._replays.is_full(now=self._now):
            raise Refusal(
                503, "sealed_busy", "too many sealed requests", headers={"retry-after": str(WINDOW)}
            )
        if not self._replays.take(self.request.secret, self.request.time):
            raise Refusal(409, "sealed_replayed", "this sealed request was answered before")
        body, self.request = self.request.body, replace(self.request, body=b"")
        return body


class SealedBodies:
    """One door's. `seed` is that of its boot (DoorKeys.hpke); `clock` in unix seconds."""

    def __init__(
        self, seed: bytes, *, clock: Callable[[], float] = time.time, replays: Replays | None = None
    ) -> None:
        self._key = OpeningKey.from_seed(seed, secrets.token_bytes(32))
        self._replays = replays or Replays()
        self._clock = clock

    @property
    def key(self) -> bytes:
        """What requests are sealed to, as evidence speaks for it."""
        return self._key.public.pack()

    async def evidence(
        self, evidence_socket: Path, receipts: ReceiptIdentity, *, nonce: bytes
    ) -> dict[str, JSON]:
        """What GET sealed-key answers; `receipts` is shown beside it. Errors as of request_evidence()."""
        bundle = await request_evidence(
            evidence_socket, purpose=Purpose.SEALED_BODIES, challenge=nonce, key=self.key
        )
        signer: dict[str, JSON] = {
            "key": b64u(receipts.spki),
            "not_before": int(receipts.not_before.timestamp()),
            "bundle": receipts.evidence.bare.to_json(),  # of the same machine: one collateral serves both
        }
        return {"bundle": bundle.to_json(), "key": b64u(self.key), "receipt_key": signer}

    async def open(self, sealed: bytes) -> Opened:
        """What is inside. Refusal 421 when it was sealed to another key, 400 for whatever else is wrong."""
        try:
            other = sealed_request.key_id(sealed) != self._key.public.id
        except FormatError:
            raise _unreadable() from None
        if other:
            raise Refusal(
                421, "sealed_key_unknown", "sealed to a key that is not in use: ask for the key again"
            )
        try:
            if len(sealed) < _LARGE:
                request = sealed_request.open_request(sealed, self._key)
            else:
                request = await asyncio.to_thread(sealed_request.open_request, sealed, self._key)
        except (FormatError, VerifyError):
            raise _unreadable() from None
        now = int(self._clock())
        if not self._replays.is_timely(request.time, now=now):
            raise Refusal(
                400, "sealed_time", f"the request's time is more than {WINDOW} s from this machine's"
            )
        return Opened(request, sealed_request.digest(sealed), self._replays, now)

    @asynccontextmanager
    async def answering(
        self, opened: Opened, http: ServerHTTP, peer: Peer, outer: Reply
    ) -> AsyncIterator[Reply]:
        """What the answer is written to, in place of `outer`. A Refusal inside is sealed, and raised again."""
        sealer = Sealer(
            secret=opened.request.secret,
            request=opened.digest,
            nonce=secrets.token_bytes(NONCE),
            key_id=self._key.public.id,
        )
        reply = SealedReply(http, peer, outer, sealer)
        try:
            yield reply
        except Refusal as refusal:
            if not reply.status:
                reply.refuse(refusal)
            raise


class SealedReply(Reply):
    """Head and body as for anybody, sealed. What HTTP says outside is that there is an answer, and nothing else."""

    def __init__(self, http: ServerHTTP, peer: Peer, outer: Reply, sealer: Sealer) -> None:
        super().__init__(http, peer)
        self._outer, self._sealer = outer, sealer

    def _head(
        self,
        status: int,
        content_type: str,
        headers: Iterable[tuple[str, str]],
        length: int | None,  # noqa: ARG002 - the seal's own end says where it ends
    ) -> bytes:
        head = super()._head(200, CONTENT_TYPE, _OUTSIDE, None)
        self.status = self._outer.status = status
        inside = [("content-type", content_type), *((name.lower(), value) for name, value in headers)]
        return head + self._http.data(self._sealer.head(status, inside))

    def send(self, data: bytes) -> None:
        super().send(self._sealer.data(data))

    def end(self) -> None:
        super().send_last(self._sealer.end())

    def send_last(self, data: bytes) -> None:
        super().send_last(self._sealer.data(data) + self._sealer.end())

    def whole(
        self,
        status: int,
        body: bytes,
        headers: Iterable[tuple[str, str]] = (),
        *,
        content_type: str = JSON_TYPE,
    ) -> None:
        head = self._head(status, content_type, headers, None)
        sealed = self._http.data(self._sealer.data(body) + self._sealer.end())
        self._peer.write(head + sealed + self._http.end())


def _unreadable() -> Refusal:
    # one sentence for all: what stands inside is for nobody who cannot seal it rightly
    return Refusal(400, "sealed_unreadable", "the body is no request that was sealed to this door")
