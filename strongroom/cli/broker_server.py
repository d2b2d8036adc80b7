"""The broker on a socket: HTTP in front of strongroom.broker.desk and of its administration, until it is told to stop.

An answer leaves only after its line of the audit log is on the disk. Told to stop, it finishes what was begun, keeps
its open sessions sealed, and the next process goes on with them.
"""

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from strongroom.broker.audit import Audit, Outcome, turned_away
from strongroom.broker.desk import Desk
from strongroom.broker.sessions import Sessions
from strongroom.cli.broker_counts import counts_of
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.cli.broker_front import DRAIN, HEADERS, Front, Limits
from strongroom.cli.broker_gate import Gate, Listener, TurnedAway
from strongroom.errors import (
    MachineError,
    StrongroomError,
)
from strongroom.host.brokerage.decisions import Decisions
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.keeper import HouseKeeper
from strongroom.host.brokerage.metrics import Metrics
from strongroom.host.brokerage.randomness import SystemRandomness
from strongroom.host.brokerage.recorder import Recorder
from strongroom.host.genuine import COLLATERAL, Verifier
from strongroom.host.life import running
from strongroom.host.notify import notify

LINGERING: Final = 2.0  # seconds for the rest of a body that nobody wants
MAX_TOLD: Final = 16  # connections that ask for numbers
SWITCH: Final = 0.001  # seconds that a thread may hold up an answer that is ready
DESCRIPTORS: Final = 128  # that are not connections


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
    sys.setswitchinterval(SWITCH)
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
        house.database.write_out()
        recorder = Recorder(house, echo)
        gate = _gate(limits, lambda address, why: decisions.note(turned_away(address, _now(), why)))
        counts = counts_of(house, sessions, gate)
        decisions = Decisions(recorder, counts, _now)
        front = Front(desk, house, recorder, decisions, counts, endpoint, limits, gate)
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(running(decisions.run()))
                listener, port = await _listen(stack, front.application(), endpoint, gate, limits.idle)
                numbers = None
                if metrics is not None:
                    alone = _gate(Limits(connections=MAX_TOLD, of_address=MAX_TOLD), lambda *_: None)
                    _, at = await _listen(stack, _telling(counts), metrics, alone, limits.idle)
                    numbers = metrics.url(at)
                what = f"serving {endpoint.url(port)}, {resumed} sessions resumed"
                await recorder.record(_administered(what))
                yield Ready(endpoint.url(port), endpoint.context is None, numbers)
                await listener.close()  # nobody new
                await front.drained()
            # Nothing is answered any more: what is open now is what the next process goes on with.
            await decisions.summarise()
            kept = desk.suspend(_now())
            house.keep_sessions(kept)
            await recorder.record(_administered(f"stopped, {len(kept)} sessions kept"))
        finally:
            front.close()
            recorder.close()


def _gate(limits: Limits, turned_away: TurnedAway) -> Gate:
    clock = asyncio.get_running_loop().time
    return Gate(_room(limits.connections), limits.of_address, turned_away, clock)


def _room(wanted: int) -> int:
    """As many of the connections wanted as there can be descriptors for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + DESCRIPTORS:
        soft = min(wanted + DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - DESCRIPTORS))


async def _listen(
    stack: AsyncExitStack, application: web.Application, endpoint: Endpoint, gate: Gate, idle: float
) -> tuple[Listener, int]:
    """What listens until the stack is left, and its port."""
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=idle,
        lingering_time=LINGERING,
        shutdown_timeout=DRAIN,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if runner.server is None:
        raise MachineError("broker: its server is not set up")
    listener = Listener(runner.server, gate, endpoint.context)
    stack.push_async_callback(listener.close)
    return listener, await listener.listen(endpoint)


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
