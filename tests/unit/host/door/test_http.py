"""Mirrors strongroom/host/door/http.py: what two parsers could read differently is read by nobody."""

from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import ProtocolError
from strongroom.host.door.http import MAX_BODY, MAX_CHUNKS, MAX_HEAD, Head, ServerHTTP, parse_head
from strongroom.host.door.refusal import Refusal

GET = b"GET /v1/models HTTP/1.1\r\nHost: door\r\n\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"


def read(data: bytes, *, cut: int | None = None) -> tuple[Head | None, bytes | None, ServerHTTP]:
    """Head and whole body of the first request in `data`, fed at once or in pieces of `cut` bytes."""
    http, head, body = ServerHTTP(), None, bytearray()
    pieces = [data] if cut is None else [data[n : n + cut] for n in range(0, len(data), cut)]
    for piece in pieces:
        http.feed(piece)
        head = head or http.next_head()
        while head is not None and (found := http.next_body()) is not None:
            if found == b"":
                return head, bytes(body), http
            body += found
    return head, None, http


def refuse(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(data)
    return caught.value


@pytest.mark.parametrize("cut", [None, 1, 2, 7])
def test_requests_are_read_however_they_are_cut(cut: int | None) -> None:
    head, body, _ = read(GET, cut=cut)
    assert head is not None and (head.method, head.target, head.body) == ("GET", "/v1/models", "none")
    assert body == b""
    assert read(POST + b"Content-Length: 5\r\n\r\nhello", cut=cut)[1] == b"hello"
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert read(chunked, cut=cut)[1] == b"hello"


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET //other/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT other:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
        (POST + b"Content-Length: +5\r\n\r\nhello", 400),
        (POST + b"Content-Length: -5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
        (POST + b"Content-Length: \r\n\r\nhello", 400),
        (POST + b"Content-Length: 9999999999999999999999\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nheXX0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n\nGET /", 400),
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", 415),
        (POST + b"Expect: something\r\nContent-Length: 5\r\n\r\nhello", 417),
        (POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET /" + b"a" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MAX_HEAD, 431),
    ],
)  # fmt: skip
def test_smuggling_and_floods_are_refused(request_bytes: bytes, status: int) -> None:
    refusal = refuse(request_bytes)
    assert refusal.status == status
    assert refusal.last


SAME: Final = (
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Content-Length: 7\r\nContent-Length: %b\r\nX: 5\r\n\r\n"
)
LENGTHS: Final = (
    b"5", b"05", b"1", b"0", b"", b"-5", b"5 ", b" 5", b"5, 5", b"5\r\nX: 5", b"5\r\nHost: b", b"x", b"\xb2",
    b"33554432", b"33554433", b"1" * 18, b"1" * 19, b"5\r\nContent-Length: 5", b"5\r\nTransfer-Encoding: chunked",
)  # fmt: skip
AGAIN: Final = st.sampled_from(LENGTHS)


def outcome(http: ServerHTTP, raw: bytes) -> Head | str:
    http.feed(raw)
    try:
        return http.next_head() or "more"
    except Refusal as refusal:
        return f"{refusal.status} {refusal.message}"


@pytest.mark.guarantee("G17")
@given(AGAIN, AGAIN, st.binary(max_size=3), st.integers(0, 110))
def test_a_head_that_comes_again_is_read_as_if_it_came_first(
    first: bytes, second: bytes, change: bytes, at: int
) -> None:
    again = SAME % second
    for raw in (again, again[:at] + change + again[at + len(change) :], again[:at] + change + again[at:]):
        http = ServerHTTP()
        if not isinstance(outcome(http, SAME % first), Head):
            return
        http.feed(bytes(int(first.split(b"\r")[0])))
        while http.next_body():
            pass
        http.start(200, [], length=0)
        http.end()
        assert http.recycle()
        assert outcome(http, raw) == outcome(ServerHTTP(), raw)


def test_no_header_we_write_can_become_two() -> None:
    for value in ("a\r\nb: c", "a\nb", "a\rb"):
        _, _, http = read(GET)
        with pytest.raises(ProtocolError, match="line break"):
            http.start(200, [("x", value)], length=0)


def test_an_answer_is_given_once_and_whole() -> None:
    _, _, http = read(GET)
    with pytest.raises(ProtocolError, match="another length"):
        http.end()
    http.start(200, [], length=3)
    http.data(b"ab")
    with pytest.raises(ProtocolError, match="another length"):
        http.end()
    with pytest.raises(ProtocolError, match="second answer"):
        http.start(200, [], length=3)


@pytest.mark.guarantee("G14")
def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    refusal = refuse(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization; Bearer s3cret\r\n\r\n")
    assert "s3cret" not in f"{refusal} {refusal!r} {refusal.message}"
    assert "s3cret" not in repr(parse_head(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: s3cret\r\n\r\n"))


def test_a_chunked_body_beyond_the_limit_is_refused_while_it_arrives() -> None:
    http = ServerHTTP()
    http.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    assert http.next_head() is not None
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for _ in range(MAX_BODY // len(chunk) + 1):
        http.feed(chunk)
        while http.next_body():
            pass
    http.feed(chunk)
    with pytest.raises(Refusal, match="413 too_large"):
        http.next_body()


@pytest.mark.parametrize(
    "first",
    [
        GET,
        POST + b"Content-Length: 5\r\n\r\nhello",
        POST + b"Content-Length: 0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("cut", [None, 1, 11])
def test_a_second_request_on_the_connection_passes_the_same_checks(first: bytes, cut: int | None) -> None:
    _, body, http = read(first, cut=cut)
    assert body is not None
    http.feed(GET if cut else b"")
    http = http if cut else read(first + GET)[2]
    out = http.start(200, [], length=2) + http.data(b"ok") + http.end()
    assert out.startswith(b"HTTP/1.1 200") and out.endswith(b"\r\n\r\nok")
    assert http.recycle()
    head = http.next_head()
    assert head is not None and head.target == "/v1/models"
    assert http.recycle() is False  # not answered yet


def test_a_broken_second_request_is_refused() -> None:
    _, _, http = read(GET + b"GET / HTTP/1.1\nHost: a\n\n")
    http.start(204, [], length=0)
    http.end()
    assert http.recycle()
    with pytest.raises(Refusal, match="400"):
        http.next_head()


def test_a_body_of_too_many_chunks_is_refused() -> None:
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * (MAX_CHUNKS + 1) + b"0\r\n\r\n"
    assert refuse(request).status == 413


def test_a_refused_connection_says_so_once() -> None:
    http = ServerHTTP()
    http.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n")
    http.next_head()
    with pytest.raises(Refusal):
        http.next_body()
    assert http.start(400, [], length=0).lower().count(b"connection: close") == 1


def test_answering_before_the_body_was_read_ends_the_connection() -> None:
    http = ServerHTTP()
    http.feed(POST + b"Content-Length: 5\r\n\r\nhel")
    http.next_head()
    out = http.start(401, [], length=0) + http.end()
    assert b"connection: close" in out.lower()
    assert not http.recycle()


def test_the_client_may_ask_for_a_close() -> None:
    _, _, http = read(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"connection: close" in (http.start(200, [], length=0) + http.end()).lower()
    assert not http.recycle()


def test_expectations_are_met_by_us() -> None:
    http = ServerHTTP()
    http.feed(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    http.next_head()
    assert http.expects_continue
    assert http.go_on() == b"HTTP/1.1 100 Continue\r\n\r\n"
    http.feed(b"hello")
    assert http.next_body() == b"hello"


def test_a_body_without_a_length_is_chunked_and_ends_with_a_last_chunk() -> None:
    _, _, http = read(GET)
    out = http.start(200, [], length=None) + http.data(b"abc")
    assert b"transfer-encoding: chunked" in out.lower() and out.endswith(b"3\r\nabc\r\n")
    assert http.end() == b"0\r\n\r\n"


def test_a_head_request_gets_no_body() -> None:
    _, _, http = read(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    out = http.start(404, [], length=3) + http.data(b"abc") + http.end()
    assert out.endswith(b"\r\n\r\n")


@given(st.binary(max_size=200), st.integers(1, 50))
def test_arbitrary_bytes_are_read_or_refused(data: bytes, cut: int) -> None:
    for request in (data, GET[:-2] + data, POST + b"Transfer-Encoding: chunked\r\n\r\n" + data):
        with suppress(Refusal):
            read(request, cut=cut)
