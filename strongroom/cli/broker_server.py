"""The broker on a socket: HTTP in front of strongroom.broker.desk and of its administration, until it is told to stop.

An answer leaves only after its line of the audit log is on the disk. Told to stop, it finishes what was begun, keeps
its open sessions sealed, and the next process goes on with them.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from strongroom.broker.audit import Audit, Outcome
from strongroom.broker.desk import Desk
from strongroom.broker.sessions import Sessions
from strongroom.cli.broker_counts import counts_of
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.cli.broker_front import DRAIN, HEADERS, Front, Limits
from strongroom.errors import (
    MachineError,
    StrongroomError,
)
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.keeper import HouseKeeper
from strongroom.host.brokerage.metrics import Metrics
from strongroom.host.brokerage.randomness import SystemRandomness
from strongroom.host.brokerage.recorder import Recorder
from strongroom.host.genuine import COLLATERAL, Verifier
from strongroom.host.notify import notify

KEEP_ALIVE: Final = 30.0  # seconds between requests, and for the head of one
HANDSHAKE_TIMEOUT: Final = 10.0  # seconds of TLS


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
        front = Front(desk, house, recorder, counts, endpoint, limits)
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
            front.close()
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


def _resumed(desk: Desk, sessions: list[bytes]) -> int:
    """How many go on. One that this version cannot read is over: its guest makes another."""
    resumed = 0
    for one in sessions:
        with suppress(StrongroomError):
            resumed += desk.resume([one], _now())
    return resumed


def _telling(metrics: Metrics) -> web.Application:
    async def tell(_request: web.Request) -> web.Response:
        response = web.Response(text=metrics.text(), headers=HEADERS)
        response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
        return response

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", tell)
    return application


def _administered(what: str) -> Audit:
    return Audit(time=_now(), peer="broker", outcome=Outcome.ADMINISTERED, rule=what)


def _now() -> datetime:
    return datetime.now(UTC)
