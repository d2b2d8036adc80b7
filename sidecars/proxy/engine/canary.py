"""Is the engine there, is it the right one, does it answer rightly; and is it still so.

Ready means answered: connection, /health, the version that was measured, an interface that is known to the last field,
exactly the expected model, one small completion and one small chat (which a model without a chat template may refuse),
all from one process. Afterwards one idle connection to that process is kept as a sentinel. The engine keeps it open as
long as it lives, so its end is the engine's end, known at once; /health over it also finds an engine whose process
lives but whose core is dead, and the canary that goes on singing one that answers, and answers wrongly.

A canary stands in line with everybody's requests. So waiting for it, and being turned away, count as silence only while
the engine gives nothing to anybody else: no crowd and no tenant may close the door by being many.
"""

import asyncio
import json
import math
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NoReturn

from sidecars.proxy.engine import surface
from sidecars.proxy.engine.connection import EngineConnection, Process
from sidecars.proxy.engine.garbage import finite
from sidecars.proxy.engine.pulse import Pulse
from sidecars.proxy.engine.song import LIKELY, ChangedError, Song, Songbook
from sidecars.proxy.plan import Plan
from sidecars.proxy.routes import Route
from strongroom.errors import FormatError, ProtocolError, TransportError
from strongroom.host.life import running
from strongroom.wire.canonical import JSON, parse_json

RETRY: Final = 0.5  # seconds between attempts to find the engine ready
HEALTH_EVERY: Final = 3.0  # seconds
HEALTH_WITHIN: Final = 30.0  # seconds; tokenising a long prompt may hold the engine's front up for a while
CANARY_WITHIN: Final = 300.0  # seconds without a token for anybody; a first completion may compile kernels
LOOK: Final = 30.0  # seconds between two looks at what the engine does while a canary waits
MAX_BUSY: Final = 10  # canaries in a row that an engine may turn away which gives nothing to others either
_MAX_ANSWER: Final = 1 << 20  # bytes
_MAX_DESCRIPTION: Final = 8 << 20  # bytes
_MAX_VALUES: Final = 1_000_000  # in its description
_SONG: Final = "The canary says:"
_SHORT: Final = {"max_tokens": 8, "temperature": 0, "seed": 0}
_SHOWN: Final = {"logprobs": LIKELY, "return_token_ids": True, "return_tokens_as_token_ids": True}
_NO_CHAT: Final = {400, 404}
_BUSY: Final = {429, 503}


class Sentinel:
    """A connection to an engine that has answered its canary."""

    def __init__(
        self,
        connection: EngineConnection,
        plan: Plan,
        book: Songbook,
        pulse: Pulse,
        *,
        served: frozenset[Route],
        max_model_len: int | None,
    ) -> None:
        self._connection, self._plan, self._book, self._pulse = connection, plan, book, pulse
        self.process: Final = connection.process  # the only one that may be asked anything
        self.served: Final = served  # of the routes that the engine answers
        self.max_model_len: Final = max_model_len  # tokens, as the engine says

    async def watch(self) -> NoReturn:
        """Never returns; raises TransportError as soon as the engine is gone or unwell."""
        while True:
            await self._connection.silence(HEALTH_EVERY)
            if not await _healthy(self._connection):
                raise TransportError("engine: /health says it is unwell")
            # raises when another process took the engine's place while this one lives on
            (await EngineConnection.open(self._plan.engine_socket, process=self.process)).close()

    async def sing(self, every: float) -> NoReturn:
        """A canary every so many seconds. Never returns; ProtocolError when one is answered otherwise than the first,
        and the next one too; TransportError when one is not answered, and nobody else is."""
        loop, pulse = asyncio.get_running_loop(), self._pulse
        busy, alive = 0, loop.time()
        while True:
            await asyncio.sleep(every)
            if await _sing(self._plan, pulse, self.process, self.served, self._book):
                busy, alive = 0, loop.time()
            elif (last := await pulse.last()) > alive:
                busy, alive = 1, last
            elif (busy := busy + 1) > MAX_BUSY:
                raise TransportError(f"engine: too busy for {busy} canaries in a row, and idle")

    def close(self) -> None:
        self._connection.close()


async def wait_for_engine(
    plan: Plan, book: Songbook | None = None, *, progress: Callable[[], float] | None = None
) -> Sentinel:
    """A sentinel on the ready engine, however long that takes.

    `progress` is the event loop's time at which any answer of the engine last brought a byte; without it there is only
    the engine's own count of tokens to see what it does for others.
    Raises ProtocolError when an engine is there and is the wrong one, exposes something unknown, or answers its canary
    with nothing or otherwise than before.
    """
    book = book or Songbook(None)
    while True:
        try:
            return await _try(plan, book, progress)
        except TransportError:
            await asyncio.sleep(RETRY)


async def _try(plan: Plan, book: Songbook, progress: Callable[[], float] | None) -> Sentinel:
    process, served, length = await _identify(plan)
    pulse = Pulse(plan.engine_socket, process, progress)
    if not await _sing(plan, pulse, process, served, book):
        raise TransportError("engine: too busy for its first canary")
    if Route.CHAT in served:
        await _chat(plan, pulse, process)
    # a fresh one: the engine closes what stays idle for seconds, and a first completion may take minutes
    connection = await EngineConnection.open(plan.engine_socket, process=process)
    return Sentinel(connection, plan, book, pulse, served=served, max_model_len=length)


async def _identify(plan: Plan) -> tuple[Process, frozenset[Route], int | None]:
    """The healthy engine's process, what it serves, and how many tokens the model holds as far as it says."""
    connection = await EngineConnection.open(plan.engine_socket)
    try:
        if not await _healthy(connection):
            raise TransportError("engine: not healthy yet")
        version = await _require_version(connection, plan.engine.version)
        _, description = await _get(connection, "/openapi.json", most=_MAX_DESCRIPTION)
        served = surface.check(description, version=version)
        return connection.process, served, await _require_model(connection, plan.model.name)
    finally:
        connection.close()


async def _healthy(connection: EngineConnection) -> bool:
    head = await connection.ask("GET", "/health", within=HEALTH_WITHIN, keep=True)
    await connection.whole(within=HEALTH_WITHIN, most=_MAX_ANSWER)
    connection.again()
    return head.status == 200


async def _get(connection: EngineConnection, target: str, *, most: int = _MAX_ANSWER) -> tuple[int, JSON]:
    head = await connection.ask("GET", target, within=HEALTH_WITHIN, keep=True)
    answer = _read(await connection.whole(within=HEALTH_WITHIN, most=most), target)
    connection.again()
    return head.status, answer


async def _require_version(connection: EngineConnection, measured: str) -> str:
    """The engine's own word for its version; a build's local part (+cpu) it does not always say."""
    match await _get(connection, "/version"):
        case (200, {"version": str(found)}) if found.partition("+")[0] == measured.partition("+")[0]:
            return found
    raise ProtocolError(f"engine: it does not say that it is version {measured}")


async def _require_model(connection: EngineConnection, name: str) -> int | None:
    match await _get(connection, "/v1/models"):
        case (200, {"data": [{"id": found, **rest}]}) if found == name:
            length = rest.get("max_model_len")
            return length if type(length) is int else None
    raise ProtocolError(f"engine: /v1/models does not list exactly {name!r}")


async def _sing(plan: Plan, pulse: Pulse, process: Process, served: frozenset[Route], book: Songbook) -> bool:
    """Whether a canary sang; it did not if the engine was too busy. ProtocolError for a wrong song.

    Another song than the first is heard twice before it is believed: the crowd of a moment may be in one, not in two.
    """
    try:
        return await _sing_once(plan, pulse, process, served, book)
    except ChangedError:
        return await _sing_once(plan, pulse, process, served, book)


async def _sing_once(
    plan: Plan, pulse: Pulse, process: Process, served: frozenset[Route], book: Songbook
) -> bool:
    target = Route.COMPLETION if Route.COMPLETION in served else Route.EMBEDDING
    asked: dict[str, object] = (
        {"prompt": _SONG, **_SHORT, **_SHOWN} if target is Route.COMPLETION else {"input": _SONG}
    )
    status, answer = await _ask(plan, pulse, process, target.value, asked)
    if status in _BUSY:
        return False
    if status != 200:
        raise ProtocolError(f"engine: the canary got status {status}, want 200")
    if target is Route.EMBEDDING:
        _require_vector(answer)
        return True
    song = Song.from_answer(answer)
    if plan.canary.expect is not None:
        song.require_tokens(plan.canary.expect)
    book.require(song)
    return True


def _require_vector(answer: JSON) -> None:
    match answer:
        case {"data": [{"embedding": [*_] | str() as vector}]}:
            if not finite(vector):
                raise ProtocolError("engine: the canary got numbers that are none")
            if vector.strip("A=") if isinstance(vector, str) else any(vector):  # base64 writes zeros as A
                return
    raise ProtocolError("engine: the canary got an empty answer")


async def _chat(plan: Plan, pulse: Pulse, process: Process) -> None:
    messages = [{"role": "user", "content": _SONG}]
    status, answer = await _ask(plan, pulse, process, Route.CHAT.value, {"messages": messages, **_SHORT})
    if status in _NO_CHAT:
        return
    match answer:
        case {"choices": [_], "usage": {"completion_tokens": int(tokens)}} if status == 200 and tokens > 0:
            return
    raise ProtocolError("engine: the canary got an empty answer")


async def _ask(
    plan: Plan, pulse: Pulse, process: Process, target: str, question: Mapping[str, object]
) -> tuple[int, JSON]:
    # a salt of its own: what the cache remembers of the last canary would spare the engine the work that is to be seen
    asked = {"model": plan.model.name, **question, "cache_salt": secrets.token_hex(16)}
    connection = await EngineConnection.open(plan.engine_socket, process=process)
    try:
        status, body = await _in_time(_answer(connection, target, json.dumps(asked).encode()), pulse)
    finally:
        connection.close()
    return status, _read(body, "canary") if status == 200 else None


async def _answer(connection: EngineConnection, target: str, body: bytes) -> tuple[int, bytes]:
    head = await connection.ask("POST", target, body=body, within=math.inf)
    return head.status, await connection.whole(within=math.inf, most=_MAX_ANSWER)


async def _in_time(answer: Coroutine[Any, Any, tuple[int, bytes]], pulse: Pulse) -> tuple[int, bytes]:
    """What comes, if it comes within CANARY_WITHIN seconds of the last token that anybody got."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with running(answer) as coming:
        while not (await asyncio.wait([coming], timeout=min(LOOK, CANARY_WITHIN)))[0]:
            if loop.time() - max(began, await pulse.last()) >= CANARY_WITHIN:
                raise TransportError("engine: no answer in time, to the canary or to anybody")
        return coming.result()


def _read(body: bytes, subject: str) -> JSON:
    try:
        return parse_json(
            body,
            f"engine: {subject}",
            max_bytes=len(body) + 1,
            max_depth=64,
            max_values=_MAX_VALUES,
            floats=True,
        )
    except FormatError as error:
        raise ProtocolError(str(error)) from error
