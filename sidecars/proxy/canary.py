"""Is the engine there, is it the right one, does it answer; and is it still there.

Ready means answered: connection, /health, exactly the expected model name, one small completion and one small chat
(which a model without a chat template may refuse). Afterwards one idle connection is kept as a sentinel. The engine
keeps it open as long as it lives, so its end is the engine's end, known at once; /health over it also finds an engine
whose process lives but whose core is dead.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from sidecars.proxy.engine import EngineConnection
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

    def __init__(self, connection: EngineConnection, max_model_len: int | None) -> None:
        self._connection = connection
        self.max_model_len = max_model_len  # tokens, as the engine says

    async def watch(self) -> NoReturn:
        """Never returns; raises TransportError as soon as the engine is gone or unwell."""
        while True:
            await self._connection.silence(HEALTH_EVERY)
            if not await _healthy(self._connection):
                raise TransportError("engine: /health says it is unwell")

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
    connection = await EngineConnection.open(plan.engine_socket)
    try:
        if not await _healthy(connection):
            raise TransportError("engine: not healthy yet")
        length = await _require_model(connection, plan.model.name)
        await _sing(plan.engine_socket, plan.model.name)
    except BaseException:
        connection.close()
        raise
    return Sentinel(connection, length)


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


async def _sing(socket: Path, model: str) -> None:
    status, answer = await _ask(socket, "/v1/completions", {"model": model, "prompt": _SONG, **_SHORT})
    _require_song(status, answer)
    messages = [{"role": "user", "content": _SONG}]
    status, answer = await _ask(
        socket, "/v1/chat/completions", {"model": model, "messages": messages, **_SHORT}
    )
    if status not in _NO_CHAT:
        _require_song(status, answer)


async def _ask(socket: Path, target: str, question: Mapping[str, object]) -> tuple[int, JSON]:
    connection = await EngineConnection.open(socket)
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
