"""Mirrors sidecars/proxy/sealed.py; the whole of it at a real door is in tests/integration/test_sealed.py."""

import asyncio
import json
import secrets
from typing import Any, Final, cast

import pytest

from sidecars.proxy.routes import Route
from sidecars.proxy.sealed import SealedBodies
from strongroom.host.door.http import ServerHTTP
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal
from strongroom.host.door.reply import Reply
from strongroom.sealedhttp.keys import SealingKey
from strongroom.sealedhttp.replay import WINDOW, Replays
from strongroom.sealedhttp.request import Method, Request, digest, seal
from strongroom.sealedhttp.response import Opener

SEED: Final = bytes(range(32))
NOW: Final = 1_700_000_000
HEAD: Final = b"POST /.well-known/strongroom/sealed HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"


class Wire:
    """A peer that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.reachable = True

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None: ...


class Conversation:
    def __init__(self, **change: Any) -> None:
        self.door = SealedBodies(SEED, clock=lambda: NOW)
        self.wire, self.http = Wire(), ServerHTTP()
        self.http.feed(HEAD)
        assert self.http.next_head() is not None and self.http.next_body() == b"x"
        self.outer = Reply(self.http, cast(Peer, self.wire))
        fields: dict[str, Any] = {
            "time": NOW, "secret": secrets.token_bytes(32), "method": Method.POST,
            "target": "/v1/chat/completions", "token": "token", "body": b"{}",
        }  # fmt: skip
        self.request = Request(**(fields | change))
        self.sealed = seal(self.request, SealingKey.parse(self.door.key))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """What the client finds in what was written: status, headers, body."""
        head, _, chunked = self.wire.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and b"sealed-response" in head
        body, rest = b"", chunked
        while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
            rest = rest.partition(b"\r\n")[2]
            body, rest = body + rest[:size], rest[size + 2 :]
        key_id = SealingKey.parse(self.door.key).id
        opener = Opener(secret=self.request.secret, request=digest(self.sealed), key_id=key_id)
        data = opener.feed(body)
        opener.require_end()
        assert opener.head is not None
        return opener.head.status, dict(opener.head.headers), data


def refused(sealed: bytes, door: SealedBodies) -> Refusal:
    with pytest.raises(Refusal) as caught:
        asyncio.run(door.open(sealed))
    return caught.value


def test_what_was_sealed_is_a_request_as_any_other() -> None:
    talk = Conversation()
    opened = asyncio.run(talk.door.open(talk.sealed))
    assert opened.destination().route is Route.CHAT and opened.take() == b"{}"
    assert opened.request.body == b""  # whoever took it has it alone
    assert opened.head.headers[b"authorization"] == b"Bearer token" and opened.head.method == "POST"


def test_a_large_one_is_opened_aside() -> None:
    talk = Conversation(body=b"x" * 400_000)
    assert asyncio.run(talk.door.open(talk.sealed)).take() == b"x" * 400_000


@pytest.mark.guarantee("G7")
def test_it_is_taken_once() -> None:
    talk = Conversation()
    first, second = (asyncio.run(talk.door.open(talk.sealed)) for _ in range(2))
    first.take()
    for again in (first, second):
        with pytest.raises(Refusal, match="409 sealed_replayed"):
            again.take()


def test_what_cannot_be_remembered_is_not_taken() -> None:
    talk = Conversation()
    talk.door._replays = Replays(most=0)
    opened = asyncio.run(talk.door.open(talk.sealed))
    with pytest.raises(Refusal, match="503 sealed_busy"):
        opened.take()


@pytest.mark.parametrize("time", [NOW - WINDOW - 1, NOW + WINDOW + 1, 0])
def test_another_time_is_refused(time: int) -> None:
    talk = Conversation(time=time)
    assert refused(talk.sealed, talk.door).code == "sealed_time"


def test_each_process_has_a_key_of_its_own() -> None:
    talk, later = Conversation(), SealedBodies(SEED, clock=lambda: NOW)
    assert later.key != talk.door.key
    assert (refused(talk.sealed, later).status, refused(talk.sealed, later).code) == (
        421,
        "sealed_key_unknown",
    )


@pytest.mark.guarantee("G14")
def test_whatever_is_broken_is_refused_in_the_same_words() -> None:
    talk = Conversation()
    broken = [b"", talk.sealed[:-1], talk.sealed + b"x", b"\2" + talk.sealed[1:], talk.sealed[:1300]]
    inside = seal(talk.request, SealingKey.parse(talk.door.key))
    broken.append(inside[:33] + bytes(len(inside) - 33))
    said = {(refused(raw, talk.door).code, refused(raw, talk.door).message) for raw in broken}
    assert said == {("sealed_unreadable", "the body is no request that was sealed to this door")}


@pytest.mark.parametrize(
    "target", ["/", "/healthz", "/.well-known/strongroom", "/v1/attestation/report", "/v1/x"]
)
def test_only_tenants_requests_are_inside(target: str) -> None:
    talk = Conversation(method=Method.GET, target=target, body=b"")
    opened = asyncio.run(talk.door.open(talk.sealed))
    with pytest.raises(Refusal, match="404"):
        opened.destination()


def test_no_seal_in_a_seal() -> None:
    talk = Conversation(target=Route.SEALED.value)
    with pytest.raises(Refusal, match="404"):
        asyncio.run(talk.door.open(talk.sealed)).destination()


async def _answered(talk: Conversation, how: str) -> None:
    opened = await talk.door.open(talk.sealed)
    async with talk.door.answering(opened, talk.http, cast(Peer, talk.wire), talk.outer) as reply:
        match how:
            case "whole":
                reply.whole(200, b'{"a":1}', [("x-strongroom-receipt", "r")])
            case "refused":
                raise Refusal(429, "too_many_requests", "wait", headers={"retry-after": "7"})
            case "stream" | "last":
                reply.start(200, "text/event-stream", [("x-strongroom-receipt", "r")])
                reply.send(b"data: 1\n\n")
                if how == "last":
                    reply.send_last(b"data: 2\n\n")
                else:
                    reply.send(b"data: 2\n\n")
                    reply.end()


@pytest.mark.guarantee("G14")
@pytest.mark.parametrize(
    ("how", "status", "header", "body"),
    [
        ("whole", 200, ("x-strongroom-receipt", "r"), b'{"a":1}'),
        ("stream", 200, ("content-type", "text/event-stream"), b"data: 1\n\ndata: 2\n\n"),
        ("last", 200, ("x-strongroom-receipt", "r"), b"data: 1\n\ndata: 2\n\n"),
    ],
)
def test_every_answer_is_for_its_asker_alone(
    how: str, status: int, header: tuple[str, str], body: bytes
) -> None:
    talk = Conversation()
    asyncio.run(_answered(talk, how))
    found, headers, data = talk.answer()
    assert (found, data) == (status, body) and headers[header[0]] == header[1]
    assert body not in talk.wire.written and b"receipt" not in talk.wire.written
    assert talk.outer.status == status, "what is logged is what was answered"


def test_a_refusal_is_sealed_and_goes_on_to_who_logs_it() -> None:
    talk = Conversation()
    with pytest.raises(Refusal, match="429"):
        asyncio.run(_answered(talk, "refused"))
    status, headers, body = talk.answer()
    assert status == talk.outer.status == 429 and headers["retry-after"] == "7"
    assert json.loads(body)["error"]["code"] == "too_many_requests" and b"429" not in talk.wire.written
