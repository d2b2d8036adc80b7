"""Is the engine there, is it the right one, does it answer; and is it still there.

Ready means answered: connection, /health, exactly the expected model name, one small completion and one small chat
(which a model without a chat template may refuse), all from one process. Afterwards one idle connection to that
process is kept as a sentinel. The engine keeps it open as long as it lives, so its end is the engine's end, known at
once; /health over it also finds an engine whose process lives but whose core is dead.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from sidecars.proxy.engine import EngineConnection, Process
from sidecars.proxy.plan import Plan
from strongroom.errors import FormatError, ProtocolError, TransportError
from strongroom.wire.canonical import JSON, parse_json

RETRY: Final = 0.5  # seconds between attempts to find the engine ready
HEALTH_EVERY: Final = 3.0  # seconds
HEALTH_WITHIN: Final = 30.0  # seconds; tokenising a long prompt may hold the engine's front up for a while
CANARY_WITHIN: Final = 300.0  # seconds; a first completion may compile kernels
_MAX_ANSWER: Final = 1 << 20  # bytes
_SONG: Final = "The canary says:"
_SHORT: Final = {"max_tokens": 4, "temperature": 0, "seed": 0}
_NO_CHAT: Final = {400, 404}


class Sentinel:
    """A connection to an engine that has answered its canary."""

    def __init__(self, connection: EngineConnection, path: Path, max_model_len: int | None) -> None:
        self._connection, self._path = connection, path
        self.process: Final = connection.process  # the only one that may be asked anything
        self.max_model_len: Final = max_model_len  # tokens, as the engine says

    async def watch(self) -> NoReturn:
        """Never returns; raises TransportError as soon as the engine is gone or unwell."""
        while True:
            await self._connection.silence(HEALTH_EVERY)
            if not await _healthy(self._connection):
                raise TransportError("engine: /health says it is unwell")
            # raises when another process took the engine's place while this one lives on
            (await EngineConnection.open(self._path, process=self.process)).close()

    def close(self) -> None:
        self._connection.close()


async def wait_for_engine(plan: Plan) -> Sentinel:
    """A sentinel on the ready engine, however long that takes.

    Raises ProtocolError when an engine is there and is the wrong one, or answers its canary with nothing.
    """
    while True:
        try:
            return await _try(plan)
        except TransportError:
            await asyncio.sleep(RETRY)


async def _try(plan: Plan) -> Sentinel:
    process, length = await _identify(plan)
    await _sing(plan.engine_socket, process, plan.model.name)
    # a fresh one: the engine closes what stays idle for seconds, and a first completion may take minutes
    connection = await EngineConnection.open(plan.engine_socket, process=process)
    return Sentinel(connection, plan.engine_socket, length)


async def _identify(plan: Plan) -> tuple[Process, int | None]:
    """The healthy engine's process, and how many tokens the model holds as far as it says."""
    connection = await EngineConnection.open(plan.engine_socket)
    try:
        if not await _healthy(connection):
            raise TransportError("engine: not healthy yet")
        return connection.process, await _require_model(connection, plan.model.name)
    finally:
        connection.close()


async def _healthy(connection: EngineConnection) -> bool:
    head = await connection.ask("GET", "/health", within=HEALTH_WITHIN, keep=True)
    await connection.whole(within=HEALTH_WITHIN, most=_MAX_ANSWER)
    connection.again()
    return head.status == 200


async def _require_model(connection: EngineConnection, name: str) -> int | None:
    head = await connection.ask("GET", "/v1/models", within=HEALTH_WITHIN, keep=True)
    answer = _read(await connection.whole(within=HEALTH_WITHIN, most=_MAX_ANSWER), "/v1/models")
    connection.again()
    match answer:
        case {"data": [{"id": found, **rest}]} if head.status == 200 and found == name:
            length = rest.get("max_model_len")
            return length if type(length) is int else None
    raise ProtocolError(f"engine: /v1/models does not list exactly {name!r}")


async def _sing(socket: Path, process: Process, model: str) -> None:
    question = {"model": model, "prompt": _SONG, **_SHORT}
    status, answer = await _ask(socket, process, "/v1/completions", question)
    _require_song(status, answer)
    messages = [{"role": "user", "content": _SONG}]
    chat = {"model": model, "messages": messages, **_SHORT}
    status, answer = await _ask(socket, process, "/v1/chat/completions", chat)
    if status not in _NO_CHAT:
        _require_song(status, answer)


async def _ask(
    socket: Path, process: Process, target: str, question: Mapping[str, object]
) -> tuple[int, JSON]:
    connection = await EngineConnection.open(socket, process=process)
    try:
        head = await connection.ask("POST", target, body=json.dumps(question).encode(), within=CANARY_WITHIN)
        body = await connection.whole(within=CANARY_WITHIN, most=_MAX_ANSWER)
    finally:
        connection.close()
    return head.status, _read(body, "canary")


def _require_song(status: int, answer: JSON) -> None:
    if status != 200:
        raise ProtocolError(f"engine: the canary got status {status}, want 200")
    match answer:
        case {"choices": [_], "usage": {"completion_tokens": int(tokens)}} if tokens > 0:
            return
    raise ProtocolError("engine: the canary got an empty answer")


def _read(body: bytes, subject: str) -> JSON:
    try:
        return parse_json(body, f"engine: {subject}", floats=True)
    except FormatError as error:
        raise ProtocolError(str(error)) from error
