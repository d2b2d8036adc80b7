"""Mirrors guest/keysock/http.py: what is read, however it is cut up, and what is refused."""

import json
import random
from http import HTTPStatus

import pytest

from guest.keysock.http import MAX_BODY, MAX_HEAD, HTTPError, Parser, answer, failure

GOOD = (
    b"POST /GetKey HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    b'{"path":"a"}'
)


def parsed(data: bytes, cut: int | None = None) -> Parser:
    parser = Parser()
    for piece in (data,) if cut is None else (data[:cut], data[cut:]):
        parser.feed(piece)
    return parser


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_a_request_may_come_in_pieces(cut: int) -> None:
    parser = Parser()
    parser.feed(GOOD[:cut])
    assert parser.next() is None
    parser.feed(GOOD[cut:])
    request = parser.next()
    assert request is not None
    assert (request.method, request.target, request.body) == ("POST", "/GetKey", b'{"path":"a"}')
    assert request.content_type == "application/json" and request.keep_alive
    assert not parser.begun


def test_requests_follow_each_other() -> None:
    parser = parsed(GOOD * 3)
    assert [parser.next() is not None for _ in range(4)] == [True, True, True, False]


def test_what_a_client_says_of_itself_is_heard() -> None:
    raw = b"GET /Info?x=1 HTTP/1.1\r\nConnection: Close\r\nContent-Type: Application/JSON; charset=utf-8\r\n\r\n"
    request = parsed(raw).next()
    assert request is not None
    assert (request.target, request.content_type, request.keep_alive) == (
        "/Info?x=1",
        "application/json",
        False,
    )


def test_a_client_that_waits_for_a_word_is_seen() -> None:
    head = GOOD.replace(b"Host: localhost", b"Expect: 100-continue").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    parser = parsed(head)
    assert parser.next() is None and parser.expects_continue and parser.awaited == 12
    parser.feed(b'{"path":"a"}')
    assert parser.next() is not None and not parser.expects_continue


WRONG = [
    (b"\x16\x03\x01\x02\x00", 400),
    (b"SSH-2.0-OpenSSH\r\n", 400),
    (b"POST  /x HTTP/1.1\r\n\r\n", 400),
    (b"POST x HTTP/1.1\r\n\r\n", 400),
    (b"POST /x HTTP/1.0\r\n\r\n", 400),
    (b"POST /x HTTP/2\r\n\r\n", 400),
    (b"POST /\x00 HTTP/1.1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\nContent-Length: 0\n\n\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nNo colon\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\n Folded: x\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nContent-Length : 1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    (b"POST /x HTTP/1.1\r\nContent-Encoding: gzip\r\n\r\n", 415),
    (b"POST /x HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nExpect: tea\r\n\r\n", 417),
    (b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
    (b"POST /x HTTP/1.1\r\nContent-Length: 999999999999999\r\n\r\n", 413),
    (b"POST /x HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n", 431),
    (b"POST /" + b"x" * MAX_HEAD, 431),
    (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 400),
]


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(("raw", "status"), WRONG)
def test_what_breaks_a_rule_is_refused_once(raw: bytes, status: int) -> None:
    with pytest.raises(HTTPError) as caught:
        parsed(raw).next()
    assert caught.value.status == status and "\n" not in str(caught.value)


def test_nothing_else_comes_of_mutated_bytes() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        raw = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        parser = parsed(bytes(raw))
        try:
            while parser.next() is not None:
                pass
        except HTTPError:
            pass


def test_an_answer_says_its_length_in_ascii() -> None:
    head, _, body = answer(HTTPStatus.OK, {"a": "é\u2028"}).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    assert f"Content-Length: {len(body)}".encode() in head and body.isascii()
    assert json.loads(body) == {"a": "é\u2028"}
    assert answer(HTTPStatus.OK, None).endswith(b"\r\n\r\nnull")
    assert b"Connection: close" in failure(HTTPStatus.BAD_REQUEST, "no", close=True)
