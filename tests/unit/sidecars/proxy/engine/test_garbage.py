"""Mirrors sidecars/proxy/engine/garbage.py."""

import asyncio
import json
import math
import struct
from base64 import b64encode
from typing import Any

import pytest

from sidecars.proxy.engine.garbage import Alarm, GarbageError, GarbageWatch
from sidecars.proxy.fields import Question
from sidecars.proxy.routes import Route
from strongroom.errors import ProtocolError


def watch(route: Route = Route.CHAT, **fields: Any) -> GarbageWatch:
    return GarbageWatch(route, Question(fields, "", stream=True))


def event(value: Any, **style: Any) -> bytes:
    return b"data: " + json.dumps(value, **style).encode() + b"\n\n"


def chat(*logprobs: Any) -> Any:
    shown = [{"token": "a", "logprob": one, "bytes": None, "top_logprobs": []} for one in logprobs]
    return {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": shown}, "finish_reason": None}]}


def completion(*logprobs: Any) -> Any:
    return {"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [*logprobs]}}]}


TIGHT = {"separators": (",", ":")}
GARBAGE = [
    (Route.CHAT, {"logprobs": True}, chat(None)),
    (Route.CHAT, {"logprobs": True}, chat(-0.5, math.nan)),
    (Route.CHAT, {"logprobs": True}, chat(math.inf)),
    (Route.CHAT, {"logprobs": True}, chat(-math.inf)),
    (Route.COMPLETION, {"logprobs": 0}, completion(None)),
    (Route.COMPLETION, {"logprobs": 2}, completion(-0.5, None)),
    (Route.COMPLETION, {"logprobs": 2}, completion(-0.5, 1e-9, math.nan)),
    (Route.COMPLETION, {"logprobs": 2, "echo": True}, completion(None, -1.0, None)),
    (Route.EMBEDDING, {}, {"data": [{"embedding": [0.5, math.nan]}]}),
    (Route.EMBEDDING, {}, {"data": [{"embedding": [None]}]}),
]


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("style", [{}, TIGHT], ids=["spaced", "tight"])
@pytest.mark.parametrize(("route", "fields", "value"), GARBAGE)
def test_numbers_that_are_none_are_seen(
    route: Route, fields: dict[str, Any], value: Any, style: dict[str, Any]
) -> None:
    with pytest.raises(GarbageError):
        watch(route, **fields).seen(event(value, **style))
    with pytest.raises(GarbageError):
        watch(route, **fields).whole(200, json.dumps(value, **style).encode())


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(("route", "fields", "value"), GARBAGE)
def test_they_are_seen_however_the_stream_is_cut(route: Route, fields: dict[str, Any], value: Any) -> None:
    data = event({"choices": [], "x": 1}) + event(value)
    for cut in range(len(data)):
        with pytest.raises(GarbageError):
            read(watch(route, **fields), data[:cut], data[cut:])


def read(one: GarbageWatch, *pieces: bytes) -> None:
    for piece in pieces:
        one.seen(piece)


IMITATION = '"logprob":null "token_logprobs":[-1,null] "embedding":[NaN] Infinity'


@pytest.mark.parametrize(
    ("route", "fields", "value"),
    [
        (Route.CHAT, {"logprobs": True}, chat(-0.5, 0.0, -9999.0, -1e-7)),
        (Route.CHAT, {"logprobs": True}, {"choices": [{"delta": {"content": IMITATION}, "logprobs": None}]}),
        (Route.COMPLETION, {"logprobs": 2}, completion(-0.5, -3)),
        (Route.COMPLETION, {"logprobs": 2}, completion()),
        (Route.COMPLETION, {"logprobs": 2}, {"choices": [{"text": IMITATION}]}),
        (Route.COMPLETION, {"logprobs": 2, "echo": True}, completion(None, -0.5)),
        (Route.EMBEDDING, {}, {"data": [{"embedding": [0.5, -1e-9]}, {"embedding": "AAAAAA=="}]}),
        (Route.CHAT, {}, chat(None)),  # nobody asked, nothing is read
    ],
)
def test_right_answers_pass(route: Route, fields: dict[str, Any], value: Any) -> None:
    styles: tuple[Any, ...] = ({}, TIGHT)
    for style in styles:
        one = watch(route, **fields)
        for _ in range(3):
            one.seen(event(value, **style))
        one.whole(200, json.dumps(value, **style).encode())


SAID = "Out of range float values are not JSON compliant"


def error(message: str) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
    ).encode()


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("detail", ["", ": nan", ": inf", ": -inf"])
def test_what_the_engines_encoder_says_of_a_nan(status: int, detail: str) -> None:
    with pytest.raises(GarbageError):
        watch().whole(status, error(SAID + detail))


@pytest.mark.parametrize(
    "message",
    [
        f"{SAID}.",
        f"{SAID}: 1e999",
        f"{SAID}\n",
        f"bad tool: {SAID}",
        f"{SAID}: nan, said the client",
        SAID.lower(),
        "boom",
    ],
)
def test_a_complaint_that_quotes_a_question_is_none(message: str) -> None:
    for status in (400, 500):
        watch().whole(status, error(message))
    watch().whole(404, error(SAID))
    for body in (SAID.encode(), json.dumps([SAID]).encode(), json.dumps({"message": SAID}).encode()):
        watch().whole(400, body)


def base64(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("style", [{}, TIGHT], ids=["spaced", "tight"])
@pytest.mark.parametrize(
    "vector", [base64(0.5, math.nan), base64(math.inf, -math.inf), base64(-math.inf), "AAAA", "A"]
)
def test_vectors_in_base64_are_looked_at(vector: str, style: dict[str, Any]) -> None:
    body = json.dumps({"data": [{"embedding": base64(0.5)}, {"embedding": vector}]}, **style).encode()
    with pytest.raises(GarbageError):
        watch(Route.EMBEDDING).whole(200, body)


def test_right_vectors_in_base64_pass() -> None:
    largest = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
    body = json.dumps({"data": [{"embedding": base64(0.5, -1e-9, largest, largest)}]}).encode()
    watch(Route.EMBEDDING).whole(200, body)


def test_the_alarm_raises_what_it_was_rung_for_first() -> None:
    async def main() -> None:
        alarm = Alarm()
        waiting = asyncio.create_task(alarm.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        alarm.ring(GarbageError())
        alarm.ring(ProtocolError("later"))
        with pytest.raises(GarbageError, match="numbers that are none"):
            await waiting

    asyncio.run(main())
