"""Mirrors strongroom/host/door/chunks.py."""

from contextlib import suppress

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.host.door.chunks import ChunkReader

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


def framed(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def feed(reader: ChunkReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


def read(data: bytes, cuts: list[int]) -> tuple[bytes, ChunkReader]:
    reader, body, at = ChunkReader(), b"", 0
    for cut in [*sorted(cuts), len(data)]:
        if not reader.over and cut > at:
            body += reader.feed(data[at:cut])
            at = cut
    return body, reader


@given(BODIES, st.binary(max_size=9), st.lists(st.integers(0, 60), max_size=8))
def test_a_body_is_the_same_however_it_is_cut(chunks: list[bytes], after: bytes, cuts: list[int]) -> None:
    data = framed(chunks)
    body, reader = read(data, [cut for cut in cuts if cut < len(data)])
    assert body == b"".join(chunks) and reader.over and reader.chunks == len(chunks)
    whole = ChunkReader()
    assert whole.feed(data + after) == body and whole.rest == after


@given(BODIES, st.data())
def test_what_we_take_others_take_for_the_same(chunks: list[bytes], choices: st.DataObject) -> None:
    data = bytearray(framed(chunks))
    for _ in range(choices.draw(st.integers(1, 3))):
        data[choices.draw(st.integers(0, len(data) - 1))] = choices.draw(
            st.sampled_from(b"\r\n0a;: \tZ+-_x\x00")
        )
    reader, body = ChunkReader(), b""
    with suppress(FormatError):
        body = reader.feed(bytes(data))
    if not reader.over:
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    events = [other.next_event()]
    while not isinstance(events[-1], h11.EndOfMessage):
        events.append(other.next_event())
    assert b"".join(event.data for event in events if isinstance(event, h11.Data)) == body
    assert other.trailing_data[0] == reader.rest


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"5;x=1\r\nhello\r\n", b"+5\r\n", b"0x5\r\n", b" 5\r\n", b"5 \r\n", b"5_0\r\n", b"5\n", b"g", b"\n",
        b"123456789\r\n", b"-1\r\n", b"5\r\nhelloX", b"5\r\nhello\n", b"5\r\nhello\rX", b"0000000000",
        b"0\r\nA: b\r\n\r\n", b"0\r\n\n", b"0\r\nX",
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 100])
def test_anything_else_is_refused(data: bytes, step: int) -> None:
    reader = ChunkReader()
    with pytest.raises(FormatError):
        feed(reader, [data[at : at + step] for at in range(0, len(data), step)])
    assert not reader.over
