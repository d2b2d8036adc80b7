"""The broker on a socket: HTTP in front of strongroom.broker.desk and of its administration, until it is told to stop.

An answer leaves only after its line of the audit log is on the disk. Told to stop, it finishes what was begun, keeps
its open sessions sealed, and the next process goes on with them.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from strongroom.broker.audit import Audit, Outcome
from strongroom.broker.desk import AUTH_RATE, Answer, Desk
from strongroom.broker.errors import Kind, Refusal
from strongroom.broker.messages import COOKIE, MAX_ATTESTATION
from strongroom.broker.rate import Buckets, Rate
from strongroom.broker.resource import PREFIX
from strongroom.broker.sessions import LIFE, Sessions
from strongroom.broker.signed import ADMIN_PREFIX, SignedRequest
from strongroom.cli.broker_counts import counts_of
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.errors import (
    MachineError,
    PolicyError,
    StrongroomError,
    VerifyError,
)
from strongroom.host.brokerage.administration import MAX_REQUEST, administer
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.keeper import HouseKeeper
from strongroom.host.brokerage.metrics import Metrics
from strongroom.host.brokerage.randomness import SystemRandomness
from strongroom.host.brokerage.recorder import Recorder
from strongroom.host.genuine import COLLATERAL, Verifier
from strongroom.host.notify import notify
from strongroom.wire.canonical import JSON, pack_json
from strongroom.wire.line import sentence

BODY_TIMEOUT: Final = 20.0  # seconds for a request's body
KEEP_ALIVE: Final = 30.0  # seconds between requests, and for the head of one
HANDSHAKE_TIMEOUT: Final = 10.0  # seconds of TLS
DRAIN: Final = 10.0  # seconds for what was begun when we are told to stop
REQUEST_RATE: Final = Rate(per_second=50.0, burst=200)
MAX_AT_ONCE: Final = 64  # requests of one peer in progress
_HEADERS: Final = {"Cache-Control": "no-store", "Server": "strongroom"}
_PATHS: Final = ("auth", "attest", "resource", "admin", "other")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often one address may ask."""

    handshakes: Rate = AUTH_RATE
    requests: Rate = REQUEST_RATE


@dataclass(frozen=True, slots=True)
class Ready:
    """A broker that answers now."""

    url: str
    plain: bool
    metrics: str | None = None  # where its numbers are


async def serve(
    house: House,
    endpoint: Endpoint,
    *,
    ready: Callable[[Ready], None],
    echo: Callable[[str], None],
    metrics: Endpoint | None = None,
    limits: Limits | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT, then finish what was begun and return."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(house, endpoint, echo=echo, metrics=metrics, limits=limits) as at:
        ready(at)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")


@asynccontextmanager
async def serving(
    house: House,
    endpoint: Endpoint,
    *,
    echo: Callable[[str], None],
    metrics: Endpoint | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Ready]:
    """A broker that answers while the context lasts. MachineError when it cannot listen there."""
    limits = limits or Limits()
    sessions = Sessions()
    desk = Desk(
        HouseKeeper(house, Verifier(house.directory / COLLATERAL)),
        SystemRandomness(),
        house.token_key(),
        sessions=sessions,
        rate=limits.handshakes,
    )
    with house.serving():
        resumed = _resumed(desk, house.take_sessions())
        recorder = Recorder(house, echo)
        counts = counts_of(house, sessions)
        front = _Front(desk, house, recorder, counts, endpoint, limits)
        try:
            async with AsyncExitStack() as stack:
                site, port = await _listen(stack, front.application(), endpoint)
                numbers = None
                if metrics is not None:
                    numbers = metrics.url((await _listen(stack, _telling(counts), metrics))[1])
                what = f"serving {endpoint.url(port)}, {resumed} sessions resumed"
                await recorder.record(_administered(what))
                yield Ready(endpoint.url(port), endpoint.context is None, numbers)
                await site.stop()  # nobody new
                await front.drained()
            # Nothing is answered any more: what is open now is what the next process goes on with.
            kept = desk.suspend(_now())
            house.keep_sessions(kept)
            await recorder.record(_administered(f"stopped, {len(kept)} sessions kept"))
        finally:
            recorder.close()


class _Site(web.BaseSite):
    """Our address, or the socket we were given, with a limit on the time of a TLS handshake."""

    def __init__(self, runner: web.AppRunner, endpoint: Endpoint) -> None:
        super().__init__(runner, ssl_context=endpoint.context)
        self._endpoint = endpoint

    @property
    def name(self) -> str:
        return self._endpoint.url(self._endpoint.port)

    async def start(self) -> None:
        await super().start()
        loop, factory, at = asyncio.get_running_loop(), self._runner.server, self._endpoint
        if factory is None:
            raise MachineError("broker: its server is not set up")
        where = {"host": at.host, "port": at.port} if at.given is None else {"sock": at.given}
        patience = HANDSHAKE_TIMEOUT if at.context is not None else None
        self._server = await loop.create_server(
            factory,
            ssl=at.context,
            backlog=1024,
            ssl_handshake_timeout=patience,
            **where,
        )


async def _listen(
    stack: AsyncExitStack, application: web.Application, endpoint: Endpoint
) -> tuple[_Site, int]:
    """What listens until the stack is left, and its port."""
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=KEEP_ALIVE, shutdown_timeout=DRAIN)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = _Site(runner, endpoint)
    try:
        await site.start()
    except (OSError, UnicodeError) as error:  # the latter for a name with an empty or overlong label
        why = (getattr(error, "strerror", None) or "cannot listen").lower()
        raise MachineError(f"{endpoint.host}:{endpoint.port}: {why}") from error
    return site, int(runner.addresses[0][1])


class _Front:
    """HTTP to desk and back."""

    def __init__(
        self,
        desk: Desk,
        house: House,
        recorder: Recorder,
        metrics: Metrics,
        endpoint: Endpoint,
        limits: Limits,
    ) -> None:
        self._desk = desk
        self._house = house
        self._recorder = recorder
        self._metrics = metrics
        self._endpoint = endpoint
        self._requests = Buckets(limits.requests)
        self._strangers = Buckets(limits.handshakes)  # whoever is no administrator and says so
        self._in_progress: dict[str, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def drained(self) -> None:
        """Return when every request that was begun is answered, or DRAIN is over."""
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await self._idle.wait()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_ATTESTATION, middlewares=[self._around])
        application.router.add_post(f"{PREFIX}/auth", self._auth)
        application.router.add_post(f"{PREFIX}/attest", self._attest)
        application.router.add_post(f"{ADMIN_PREFIX}/{{action:[a-z-]+}}", self._administer)
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/{path:.*}", self._get)
        application.router.add_route("*", "/{path:.*}", self._other)
        return application

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Limits before, counts after."""
        peer, path, begun = _peer(request), _path(request), time.monotonic()
        busy = self._in_progress.get(peer, 0)
        if busy >= MAX_AT_ONCE or not self._requests.take(peer, _now()):
            self._metrics.count("strongroom_broker_limited_total")
            return _too_many("too many requests from this address")
        self._in_progress[peer] = busy + 1
        self._idle.clear()
        status = 500
        try:
            response = await handler(request)
            status = response.status
            if self._closing:
                response.force_close()
            return response
        except web.HTTPException as error:
            status = error.status
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
        return await self._respond(self._desk.auth(await _body(request), peer=_peer(request), now=_now()))

    async def _attest(self, request: web.Request) -> web.Response:
        body, cookie = await _body(request), request.cookies.get(COOKIE)
        return await self._respond(self._desk.attest(body, peer=_peer(request), cookie=cookie, now=_now()))

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
        body, action = await _body(request), request.match_info["action"]
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
            return _too_many("too many requests that nobody signed who may")
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
        return web.Response(text="ok\n", headers=_HEADERS)

    async def _other(self, _request: web.Request) -> web.Response:
        detail = "resources are kept with `strongroom broker put`, not by this path"
        return await self._respond(Answer(401, Refusal(Kind.ADMIN, detail).pack()))

    async def _respond(self, answer: Answer) -> web.Response:
        if answer.audit is not None and (trouble := await self._recorded(answer.audit)) is not None:
            return trouble
        response = web.Response(
            status=answer.status, body=answer.body, content_type="application/json", headers=_HEADERS
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
            await self._recorder.record(audit)
        except StrongroomError:
            self._metrics.count("strongroom_broker_unrecorded_total")
            detail = "the decision could not be recorded, so it is none"
            return _refused(503, detail)
        self._metrics.count("strongroom_broker_decisions_total", verdict=audit.outcome.value)
        return None


def _resumed(desk: Desk, sessions: list[bytes]) -> int:
    """How many go on. One that this version cannot read is over: its guest makes another."""
    resumed = 0
    for one in sessions:
        with suppress(StrongroomError):
            resumed += desk.resume([one], _now())
    return resumed


def _telling(metrics: Metrics) -> web.Application:
    async def tell(_request: web.Request) -> web.Response:
        response = web.Response(text=metrics.text(), headers=_HEADERS)
        response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
        return response

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", tell)
    return application


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _administered(what: str) -> Audit:
    return Audit(time=_now(), peer="broker", outcome=Outcome.ADMINISTERED, rule=what)


def _refused(status: int, detail: str) -> web.Response:
    body = Refusal(Kind.HTTP, detail).pack()
    return web.Response(status=status, body=body, content_type="application/json", headers=_HEADERS)


def _too_many(detail: str) -> web.Response:
    response = _refused(429, detail)
    response.headers["Retry-After"] = "1"
    return response


def _json(status: int, value: dict[str, JSON]) -> web.Response:
    return web.Response(
        status=status, body=pack_json(value), content_type="application/json", headers=_HEADERS
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
