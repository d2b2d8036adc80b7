"""Mirrors sidecars/proxy/engine/answer.py."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars.proxy.engine.answer import MAX_HEAD, AnswerReader
from strongroom.errors import FormatError

OK = (
    b"HTTP/1.1 200 OK\r\ndate: now\r\nserver: uvicorn\r\nContent-Type:  text/event-stream; charset=utf-8 \r\n"
)
ANSWERS = [
    (OK + b"content-length: 5\r\n\r\nhello", b"hello"),
    (OK + b"content-length: 0\r\n\r\n", b""),
    (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
]


@given(st.sampled_from(ANSWERS), st.integers(1, 200))
def test_an_answer_is_the_same_however_it_is_cut(answer: tuple[bytes, bytes], step: int) -> None:
    data, body = answer
    reader, found = AnswerReader(), b""
    for at in range(0, len(data), step):
        assert not reader.over
        found += reader.feed(data[at : at + step])
    assert (found, reader.over, reader.keeps, reader.rest) == (body, True, True, b"")
    assert reader.head is not None and reader.head.status == 200 and reader.head.streams


def test_what_follows_an_answer_is_kept_apart() -> None:
    for data, body in ANSWERS:
        reader = AnswerReader()
        assert reader.feed(data + b"more") == body
        assert reader.over and reader.rest == b"more"


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n", b"HTTP/1.1 404\r\nConnection: Close\r\ncontent-length: 1\r\n"]
)  # fmt: skip
def test_an_engine_may_end_its_connection(head: bytes) -> None:
    reader = AnswerReader()
    assert reader.feed(head + b"\r\nx") == b"x"
    assert reader.over and not reader.keeps and reader.head is not None and not reader.head.streams


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\ncontent-length: 0\r\n\r\n",
        OK + b"\r\n",
        OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"content-length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 1, 1\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        OK + b" folded: x\r\ncontent-length: 1\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD,
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        AnswerReader().feed(data)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    for answer in (data, OK + data, OK + b"transfer-encoding: chunked\r\n\r\n" + data):
        with suppress(FormatError):
            AnswerReader().feed(answer)
