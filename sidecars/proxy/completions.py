"""One completion: the client's question, the engine's answer, the receipt for both.

The request body is hashed exactly as received, and as forwarded. The answer is hashed exactly as delivered: a stream
passes through event by event; a whole answer is one JSON object, given back without the engine's internal members.
Prompts and completions are in no log, no exception and no repr.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from sidecars.proxy.bodies import read_object, write_json
from sidecars.proxy.engine.answer import EngineHead
from sidecars.proxy.engine.connection import TOTAL, EngineConnection
from sidecars.proxy.engine.garbage import GarbageError, GarbageWatch
from sidecars.proxy.engine.pool import UnreachableError
from sidecars.proxy.fields import Question, read_question
from sidecars.proxy.intake import Reading
from sidecars.proxy.metrics import Cause
from sidecars.proxy.plan import Tenant
from sidecars.proxy.receipts.book import Witness
from sidecars.proxy.routes import Route
from sidecars.proxy.service import Service
from sidecars.proxy.stream import Stream
from strongroom.errors import MachineError, TransportError
from strongroom.host.door.refusal import Refusal
from strongroom.host.door.reply import Reply
from strongroom.wire.canonical import JSON

STREAM_HEAD: Final = 60.0  # seconds until a stream's head; its first event may take as long as a prompt takes
MAX_ANSWER: Final = 32 * 1024 * 1024  # bytes
UNSEEN: Final = 20  # tokens for each second of an answer that was cut unseen
LARGE: Final = 64 * 1024  # bytes of a body from which on reading it would keep others waiting
_INTERNAL: Final = ("kv_transfer_params", "ec_transfer_params", "metrics", "prompt_text")
_PASSED_ON: Final = {400, 404, 413, 422}  # the engine's complaints about the question itself
_log: Final = logging.getLogger("strongroom.proxy")


async def complete(
    service: Service, tenant: Tenant, route: Route, reading: Reading, reply: Reply, *, id: str
) -> None:
    """Answer the question that was read. Raises Refusal while nothing was answered yet.

    Cancelled, it frees the engine at once. While it waits for a place it keeps what the engine will get and nothing
    else, and that no longer than the engine takes to read it.
    """
    exchange = await _prepare(service, tenant, route, reading, reply, id)
    try:
        async with service.admission.place(tenant, weight=exchange.weight):
            await exchange.run()
        await reply.drain()  # the place was for the engine: another may have it
    except UnreachableError:
        raise _engine_trouble(503) from None
    except TransportError:
        raise _engine_trouble() from None
    except GarbageError as error:
        service.alarm.ring(error)
        raise _engine_trouble() from None
    except MachineError as error:
        _log.error("%s", error)
        raise Refusal(500, "receipt_unavailable", "no receipt can be made now") from None


async def _prepare(
    service: Service, tenant: Tenant, route: Route, reading: Reading, reply: Reply, id: str
) -> "_Exchange":
    body = reading.take()
    question = await _read(service, route, body)
    salt = service.admission.salt(tenant, namespace=question.namespace, user=question.user)
    packed = question.pack(model=service.plan.model.name, salt=salt)
    witness = service.book.witness(
        id=id, route=route, tenant=tenant, received=body, forwarded=packed, stream=question.stream
    )
    service.metrics.received(len(body))
    watch = GarbageWatch(route, question)
    exchange = _Exchange(service, tenant, watch, witness, reply, reading, packed)
    exchange.weight, exchange.tokens = question.sequences, question.asked(packed)
    return exchange


async def _read(service: Service, route: Route, body: bytes) -> Question:
    model = service.plan.model.name
    if len(body) < LARGE:
        return read_question(route, body, model=model)
    async with service.reading:
        question = read_question(route, body, model=model)
        await asyncio.sleep(0)
    return question


class _Exchange:
    """What one question needs until its answer is out."""

    def __init__(
        self,
        service: Service,
        tenant: Tenant,
        watch: GarbageWatch,
        witness: Witness,
        reply: Reply,
        reading: Reading,
        packed: bytes,
    ) -> None:
        self._service, self._tenant, self._watch = service, tenant, watch
        self._witness, self._reply, self._reading = witness, reply, reading
        self._packed = packed
        self.tokens = 0  # of the question, as well as we can tell
        self.weight = 1  # answers that the engine gives at once
        self._asked = 0.0  # loop.time() when the engine had the question

    async def run(self) -> None:
        streams = self._witness.stream
        pool = self._service.pool()
        try:
            engine, head = await pool.ask(
                self._witness.route,
                body=self._take(),
                request_id=self._witness.id,
                within=STREAM_HEAD if streams else TOTAL,
                sent=self._sent,
            )
        except (TransportError, asyncio.CancelledError):
            self._estimate()
            raise
        try:
            if head.status != 200:
                raise self._complaint(head.status, await engine.whole(within=STREAM_HEAD, most=MAX_ANSWER))
            if head.streams is not streams:
                raise _engine_trouble()
            if streams:
                await self._stream(engine)
            else:
                await self._whole(head, await self._answer(engine))
        except asyncio.CancelledError:
            self._service.metrics.aborted(self._cause())
            raise
        finally:
            pool.give_back(engine)

    def _take(self) -> bytes:
        packed, self._packed = self._packed, b""
        return packed

    def _sent(self) -> None:
        self._asked = asyncio.get_running_loop().time()
        self._reading.release()

    async def _answer(self, engine: EngineConnection) -> bytes:
        try:
            body = await engine.whole(most=MAX_ANSWER)
        except (TransportError, asyncio.CancelledError):
            self._estimate()
            raise
        self._heard(asyncio.get_running_loop().time())
        return body

    def _estimate(self) -> None:
        """Charge for an answer that was cut before the engine said what it took: or cutting would cost nothing."""
        if self._asked:
            seconds = asyncio.get_running_loop().time() - self._asked
            self._spent(self.tokens, int(seconds * UNSEEN))

    def _heard(self, now: float) -> None:
        self._service.last_token = now

    async def _whole(self, head: EngineHead, body: bytes) -> None:
        self._watch.whole(head.status, body)
        answer = read_object(body)
        if answer is None:
            raise _engine_trouble()
        for name in _INTERNAL:
            answer.pop(name, None)
        body = write_json(answer)
        self._witness.delivered(body)
        self._spent(*_usage(answer.get("usage")))
        self._witness.close(self._reply.reaches, _text(answer.get("id")))  # before anybody has the answer
        self._service.metrics.sent(len(body))
        self._reply.whole(200, body, self._headers())

    async def _stream(self, engine: EngineConnection) -> None:
        service = self._service
        stream = Stream(
            self._reply, self._witness, self._watch, service.metrics, service.plan.stream, self._heard
        )
        self._reply.draws(engine)
        try:
            stream.start(self._headers())
            await engine.deliver(stream.take)
            stream.finish()
        except TransportError as error:
            silent = isinstance(error.__cause__, TimeoutError)
            service.metrics.aborted(Cause.TIMEOUT if silent else Cause.ENGINE)
            stream.break_off()
        except GarbageError as error:
            service.metrics.aborted(Cause.ENGINE)
            stream.break_off()
            service.alarm.ring(error)
        except MachineError as error:
            _log.error("%s", error)
            stream.break_off()
        except asyncio.CancelledError:
            stream.break_off()
            raise
        finally:
            self._reply.draws(None)
            engine.go_on()
            self._spent(*stream.spent(self.tokens))
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        try:
            stream.close()
        except MachineError as error:  # where a cancellation may be under way, which must go on
            _log.error("%s", error)

    def _headers(self) -> Sequence[tuple[str, str]]:
        return self._service.book.headers(self._witness.id)

    def _cause(self) -> Cause:
        if self._reply.reaches:
            return Cause.CLOSED
        return Cause.STALL if self._reply.stalled else Cause.CLIENT

    def _spent(self, prompt: int, completion: int) -> None:
        self._service.admission.spent(self._tenant, prompt=prompt, completion=completion)

    def _complaint(self, status: int, body: bytes) -> Refusal:
        """The engine's error as ours. Its message quotes the question, which its asker may read and no log may hold."""
        self._watch.whole(status, body)
        if status in {429, 503}:
            return Refusal(503, "engine_busy", "the engine is busy", headers={"retry-after": "1"})
        answer = read_object(body) or {}
        match answer.get("error"):
            case {"message": str(message)} if status in _PASSED_ON:
                return Refusal(status, "engine_refused", message[:4096])
        return _engine_trouble()


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _usage(value: JSON) -> tuple[int, int]:
    """Tokens of a question and its answer, as the engine counts."""
    if not isinstance(value, dict):
        return 0, 0
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    return (prompt if type(prompt) is int else 0), (completion if type(completion) is int else 0)


def _engine_trouble(status: int = 502) -> Refusal:
    return Refusal(status, "engine_error", "the engine could not answer this request")
