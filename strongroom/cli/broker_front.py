"""A broker's HTTP: requests to the desk and to its administration, and their answers.

An answer leaves, and a session is attested, only after its line of the audit log is on the disk. Evidence is verified
on threads beside the loop, a few at once: whoever sends much of it holds up nobody else's answer.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from aiohttp import web

from strongroom.broker.audit import Audit, Outcome, turned_away
from strongroom.broker.desk import AUTH_RATE, Answer, Desk, Examined
from strongroom.broker.errors import Kind, Refusal
from strongroom.broker.messages import COOKIE, MAX_ATTESTATION
from strongroom.broker.rate import Buckets, Rate, network_of
from strongroom.broker.resource import PREFIX
from strongroom.broker.sessions import LIFE, Session
from strongroom.broker.signed import ADMIN_PREFIX, SignedRequest
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.cli.broker_gate import CONNECTIONS, OF_ADDRESS, Gate
from strongroom.errors import MachineError, PolicyError, StrongroomError, VerifyError
from strongroom.host.brokerage.administration import MAX_REQUEST, administer
from strongroom.host.brokerage.decisions import Decisions
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.metrics import Metrics
from strongroom.host.brokerage.recorder import Recorder
from strongroom.wire.canonical import JSON, pack_json
from strongroom.wire.line import sentence

IDLE: Final = 30.0  # seconds between requests, and for the head of one
BODY_TIMEOUT: Final = 20.0  # seconds for a request's body
DRAIN: Final = 10.0  # seconds for what was begun when we are told to stop
REQUEST_RATE: Final = Rate(per_second=50.0, burst=200)
MAX_AT_ONCE: Final = 64  # requests of one peer in progress
MAX_IN_PROGRESS: Final = 512  # requests of everybody
EXAMINERS: Final = 4  # threads that verify evidence
MAX_EXAMINED: Final = 64  # attestations on those threads, or waiting for one
HEADERS: Final = {"Cache-Control": "no-store", "Server": "strongroom"}
_PATHS: Final = ("auth", "attest", "resource", "admin", "other")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often one address may ask, how many connections there are, and how slow they may be."""

    handshakes: Rate = AUTH_RATE
    requests: Rate = REQUEST_RATE
    connections: int = CONNECTIONS
    of_address: int = OF_ADDRESS
    idle: float = IDLE
    body: float = BODY_TIMEOUT


class Front:
    """HTTP to desk and back."""

    def __init__(
        self,
        desk: Desk,
        house: House,
        recorder: Recorder,
        decisions: Decisions,
        metrics: Metrics,
        endpoint: Endpoint,
        limits: Limits,
        gate: Gate,
    ) -> None:
        self._desk = desk
        self._house = house
        self._recorder = recorder
        self._decisions = decisions
        self._gate = gate
        self._body_timeout = limits.body
        self._metrics = metrics
        self._endpoint = endpoint
        self._requests = Buckets(limits.requests)
        self._strangers = Buckets(limits.handshakes)  # whoever is no administrator and says so
        self._in_progress: Counter[str] = Counter()
        self._examining = 0
        self._examiners = ThreadPoolExecutor(EXAMINERS, thread_name_prefix="evidence")
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def drained(self) -> None:
        """Return when every request that was begun is answered, or DRAIN is over."""
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await self._idle.wait()

    def close(self) -> None:
        self._examiners.shutdown()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_ATTESTATION, middlewares=[self._around])
        application.router.add_post(f"{PREFIX}/auth", self._auth)
        application.router.add_post(f"{PREFIX}/attest", self._attest)
        application.router.add_post(f"{ADMIN_PREFIX}/{{action:[a-z-]+}}", self._administer)
        application.router.add_get("/healthz", self._health, allow_head=False)
        application.router.add_get("/{path:.*}", self._get, allow_head=False)
        application.router.add_route("*", "/{path:.*}", self._other)
        return application

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Limits before, counts after."""
        peer, path, begun = network_of(_peer(request)), _path(request), time.monotonic()
        busy = self._in_progress.get(peer, 0)
        if busy >= MAX_AT_ONCE or not self._requests.take(peer, _now()):
            self._metrics.count("strongroom_broker_limited_total")
            detail = "too many requests from this address"
            return await self._turned_away(request, detail) or _too_many(detail)
        if self._in_progress.total() >= MAX_IN_PROGRESS:
            detail = "too many requests"
            return await self._turned_away(request, detail) or _refused(503, detail)
        self._in_progress[peer] += 1
        self._idle.clear()
        status = 500
        try:
            with self._gate.busy(request.transport):
                response = await handler(request)
            status = response.status
            if self._closing:
                response.force_close()
            return response
        except web.HTTPException as error:
            status = error.status
            said = f"{request.method} {path}: {error.reason.lower()}"
            if (trouble := await self._turned_away(request, said)) is not None:
                return trouble
            raise
        finally:
            self._in_progress[peer] -= 1
            if not self._in_progress[peer]:
                del self._in_progress[peer]
            if not self._in_progress:
                self._idle.set()
            self._metrics.count("strongroom_broker_requests_total", path=path, status=str(status))
            self._metrics.observe("strongroom_broker_request_seconds", time.monotonic() - begun, path=path)

    async def _auth(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        return await self._respond(self._desk.auth(body, peer=_peer(request), now=_now()))

    async def _attest(self, request: web.Request) -> web.Response:
        body, cookie = await self._body(request), request.cookies.get(COOKIE)
        session = self._desk.begin_attempt(cookie, peer=_peer(request), now=_now())
        if isinstance(session, Answer):
            return await self._respond(session)
        if self._examining >= MAX_EXAMINED:
            self._desk.abandon(session)
            detail = "too much evidence is being verified"
            return await self._turned_away(request, detail) or _refused(503, detail)
        self._examining += 1
        try:
            examine = partial(self._examined, session, body, _peer(request))
            examined = await asyncio.get_running_loop().run_in_executor(self._examiners, examine)
            if examined is None:
                return self._unrecorded()
            answer = self._desk.conclude(cookie or "", examined, _now())
            return await self._respond(answer, recorded=answer is examined.answer)
        finally:
            self._examining -= 1
            self._desk.abandon(session)  # where it was not concluded

    def _examined(self, session: Session, body: bytes, peer: str) -> Examined | None:
        """On a thread: what the evidence is, once its line is kept; None where that cannot be."""
        examined = self._desk.examine(session, body, peer=peer, now=_now())
        try:
            if examined.answer.audit is not None:
                self._decisions.keep(examined.answer.audit)
        except StrongroomError:
            return None
        return examined

    async def _get(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        # A name given twice is no number and no word we know: it is refused where it is read.
        query = {name: ",".join(request.query.getall(name)) for name in request.query}
        return await self._respond(
            self._desk.get(
                request.rel_url.raw_path,
                peer=_peer(request),
                cookie=request.cookies.get(COOKIE),
                bearer=token if scheme.lower() == "bearer" else None,
                now=_now(),
                query=query,
            )
        )

    async def _administer(self, request: web.Request) -> web.Response:
        body, action = await self._body(request), request.match_info["action"]
        if len(body) > MAX_REQUEST:
            raise web.HTTPRequestEntityTooLarge(MAX_REQUEST, len(body))
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            signed = SignedRequest.from_headers(
                headers,
                method=request.method,
                path=request.rel_url.raw_path_qs,
                body=body,
                broker=self._endpoint.spki_sha256,
            )
        except StrongroomError as error:  # signed by nobody
            told = _json(400, {"error": sentence(str(error)), "code": error.exit_code})
            return await self._turned_away(request, f"{action}: {error}") or told
        try:
            done = await asyncio.to_thread(administer, self._house, action, signed, _now())
        except StrongroomError as error:
            return await self._declined(request, action, error)
        self._recorder.told(done.lines)
        self._metrics.count("strongroom_broker_decisions_total", verdict=Outcome.ADMINISTERED.value)
        return _json(200, {**done.result, "audit": [line.decode() for line in done.lines]})

    async def _declined(self, request: web.Request, action: str, error: StrongroomError) -> web.Response:
        """An administrator's mistake is said; a stranger's try is also in the audit log."""
        told: dict[str, JSON] = {"error": sentence(str(error)), "code": error.exit_code}
        if isinstance(error, MachineError):
            return _json(503, told)
        if not isinstance(error, VerifyError | PolicyError):
            return _json(400, told)
        if not self._strangers.take(_peer(request), _now()):
            detail = "too many requests that nobody signed who may"
            return await self._turned_away(request, detail) or _too_many(detail)
        audit = Audit(
            time=_now(),
            peer=_peer(request),
            outcome=Outcome.FORBIDDEN,
            rule=sentence(f"{action}: {error}"),
        )
        if (trouble := await self._recorded(audit)) is not None:
            return trouble
        return _json(403, told)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers=HEADERS)

    async def _other(self, request: web.Request) -> web.Response:
        detail = "resources are kept with `strongroom broker put`, not by this path"
        audit = turned_away(_peer(request), _now(), f"{request.method} {request.rel_url.raw_path}: {detail}")
        return await self._respond(Answer(401, Refusal(Kind.ADMIN, detail).pack(), audit=audit))

    async def _respond(self, answer: Answer, *, recorded: bool = False) -> web.Response:
        audit = None if recorded else answer.audit
        if audit is not None and (trouble := await self._recorded(audit)) is not None:
            return trouble
        response = web.Response(
            status=answer.status, body=answer.body, content_type="application/json", headers=HEADERS
        )
        if answer.status == 429:
            response.headers["Retry-After"] = "1"
        if answer.cookie is not None:
            response.set_cookie(
                COOKIE,
                answer.cookie,
                path=PREFIX,
                max_age=int(LIFE.total_seconds()),
                secure=self._endpoint.context is not None,
                httponly=True,
                samesite="Strict",
            )
        return response

    async def _recorded(self, audit: Audit) -> web.Response | None:
        """What to answer instead, where the decision could not be kept."""
        try:
            await self._decisions.record(audit)
        except StrongroomError:
            return self._unrecorded()
        return None

    def _unrecorded(self) -> web.Response:
        self._metrics.count("strongroom_broker_unrecorded_total")
        return _refused(503, "the decision could not be recorded, so it is none")

    async def _turned_away(self, request: web.Request, why: str) -> web.Response | None:
        return await self._recorded(turned_away(_peer(request), _now(), why))

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._body_timeout):
                return await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None


def _refused(status: int, detail: str) -> web.Response:
    body = Refusal(Kind.HTTP, detail).pack()
    return web.Response(status=status, body=body, content_type="application/json", headers=HEADERS)


def _too_many(detail: str) -> web.Response:
    response = _refused(429, detail)
    response.headers["Retry-After"] = "1"
    return response


def _json(status: int, value: dict[str, JSON]) -> web.Response:
    return web.Response(
        status=status, body=pack_json(value), content_type="application/json", headers=HEADERS
    )


def _path(request: web.Request) -> str:
    """Few words for many paths: nobody's names in our numbers."""
    if request.path.startswith(ADMIN_PREFIX):
        return "admin"
    first = request.path.removeprefix(f"{PREFIX}/").partition("/")[0]
    return first if first in _PATHS and request.path.startswith(PREFIX) else "other"


def _peer(request: web.Request) -> str:
    return request.remote or "unknown"


def _now() -> datetime:
    return datetime.now(UTC)
