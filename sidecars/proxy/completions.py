"""One completion: the client's question, the engine's answer, the receipt for both.

The request body is hashed exactly as received. The answer is hashed exactly as delivered: a stream passes through
byte for byte as the engine's chunks decode; a whole answer is one JSON object, given back without the engine's
internal members. Prompts and completions are in no log, no exception and no repr.
"""

import asyncio
import json
from typing import Final

from sidecars.proxy.engine import TOTAL, EngineConnection
from sidecars.proxy.fields import MAX_DEPTH, Question, read_question
from sidecars.proxy.plan import Tenant
from sidecars.proxy.routes import Route
from sidecars.proxy.service import Service, Witness
from strongroom.errors import FormatError, TransportError
from strongroom.host.door.refusal import Refusal
from strongroom.host.door.reply import EVENT_STREAM, Reply
from strongroom.wire.canonical import JSON, parse_json

STREAM_HEAD: Final = 60.0  # seconds until a stream's head; its first event may take as long as a prompt takes
MAX_ANSWER: Final = 32 * 1024 * 1024  # bytes
RECEIPT_HEADER: Final = "x-strongroom-receipt"
_INTERNAL: Final = ("kv_transfer_params", "ec_transfer_params", "metrics", "prompt_text")
_PASSED_ON: Final = {400, 404, 413, 422}  # the engine's complaints about the question itself
_DONE: Final = b"data: [DONE]\n\n"  # the engine's own end of a stream
_FAILED: Final = b'data: {"error"'  # its own report of a failure in the midst of one
_BROKEN_OFF: Final = (
    b'data: {"error":{"message":"the engine stopped before the answer was complete",'
    b'"type":"server_error","param":null,"code":"engine_error"}}\n\n'
)


async def complete(
    service: Service, tenant: Tenant, route: Route, body: bytes, reply: Reply, *, id: str
) -> None:
    """Answer a question. Raises Refusal while nothing was answered yet; cancelled, it frees the engine at once."""
    async with service.reading:
        question = read_question(route, body, model=service.plan.model.name)
        await asyncio.sleep(0)
    witness = Witness(service, id=id, route=route, tenant=tenant, request=body)
    packed = question.pack(model=service.plan.model.name, salt=service.salt(tenant, question.namespace))
    engine: EngineConnection | None = None
    try:
        engine = await service.engine()
        await _exchange(engine, question, route, packed, witness, reply)
    except TransportError:
        raise _engine_trouble(502 if engine else 503) from None
    finally:
        if engine is not None:
            engine.close()


async def _exchange(
    engine: EngineConnection, question: Question, route: Route, packed: bytes, witness: Witness, reply: Reply
) -> None:
    within = STREAM_HEAD if question.stream else TOTAL
    head = await engine.ask("POST", route.value, body=packed, request_id=witness.id, within=within)
    if head.status != 200:
        raise _complaint(head.status, await engine.whole(within=STREAM_HEAD, most=MAX_ANSWER))
    if head.streams is not question.stream:
        raise _engine_trouble()
    if question.stream:
        await _stream(engine, witness, reply)
    else:
        await _whole(engine, witness, reply)


async def _stream(engine: EngineConnection, witness: Witness, reply: Reply) -> None:
    headers = [(RECEIPT_HEADER, witness.id), ("x-accel-buffering", "no")]
    reply.start(200, EVENT_STREAM, headers)
    course, done = _Course(), False
    try:
        async for piece in engine.pieces():
            course.goes_on(piece)
            witness.delivered(piece)
            reply.send(piece)
            await reply.drain()
        course.require_end()
        reply.end()
        done = reply.reaches and not course.failed
    except TransportError:
        _break_off(course, witness, reply)
    except asyncio.CancelledError:
        _break_off(course, witness, reply)
        raise
    finally:
        witness.sign(complete=done)
    await reply.drain()


class _Course:
    """How a stream goes, read off its bytes. No answer can imitate the marks: JSON escapes quotes and newlines."""

    def __init__(self) -> None:
        self.failed = False
        self._tail = b""

    def goes_on(self, piece: bytes) -> None:
        seen = self._tail + piece
        self.failed = self.failed or _FAILED in seen
        self._tail = seen[-max(len(_DONE), len(_FAILED)) :]

    @property
    def between_events(self) -> bool:
        return not self._tail or self._tail.endswith(b"\n\n")

    def require_end(self) -> None:
        if not self._tail.endswith(_DONE):
            raise TransportError("engine: the stream ended before its end")


def _break_off(course: _Course, witness: Witness, reply: Reply) -> None:
    """Say in the stream's own language that it is cut; the missing last chunk says it in HTTP's."""
    if reply.reaches:
        words = _BROKEN_OFF if course.between_events else b"\n\n" + _BROKEN_OFF
        witness.delivered(words)
        reply.send(words)


async def _whole(engine: EngineConnection, witness: Witness, reply: Reply) -> None:
    answer = _object(await engine.whole(most=MAX_ANSWER))
    if answer is None:
        raise _engine_trouble()
    for name in _INTERNAL:
        answer.pop(name, None)
    body = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    witness.delivered(body)
    reply.whole(200, body, {RECEIPT_HEADER: witness.id})
    witness.sign(complete=reply.reaches)
    await reply.drain()


def _complaint(status: int, body: bytes) -> Refusal:
    """The engine's error as ours. Its message quotes the question, which its asker may read and no log may hold."""
    if status in {429, 503}:
        return Refusal(503, "engine_busy", "the engine is busy", headers={"retry-after": "1"})
    answer = _object(body) or {}
    match answer.get("error"):
        case {"message": str(message)} if status in _PASSED_ON:
            return Refusal(status, "engine_refused", message[:4096])
    return _engine_trouble()


def _object(body: bytes) -> dict[str, JSON] | None:
    try:
        value = parse_json(
            body, "engine", max_bytes=MAX_ANSWER, max_depth=MAX_DEPTH, max_values=MAX_ANSWER // 8, floats=True
        )
    except FormatError:
        return None
    return value if isinstance(value, dict) else None


def _engine_trouble(status: int = 502) -> Refusal:
    return Refusal(status, "engine_error", "the engine could not answer this request")
