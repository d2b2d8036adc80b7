"""Mirrors strongroom/wire/framing.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.wire.framing import MAX_FRAME, FrameReader, enc, frame


def test_enc_keeps_neighbours_apart() -> None:
    assert enc(b"ab") == b"\0\0\0\0\0\0\0\x02ab"
    assert enc(b"a") + enc(b"bc") != enc(b"ab") + enc(b"c")


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 9))
def test_frames_arrive_whole_however_the_stream_is_cut(payloads: list[bytes], step: int) -> None:
    stream = b"".join(map(frame, payloads))
    reader = FrameReader()
    found = [got for n in range(0, len(stream), step) for got in reader.feed(stream[n : n + step])]
    assert found == payloads
    assert reader.pending == 0


def test_an_unfinished_frame_is_seen() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"abc")[:-1]) == []
    assert reader.pending == 6


def test_too_long_a_frame_is_refused_by_its_length_alone() -> None:
    with pytest.raises(FormatError, match=f"frame: {MAX_FRAME + 1} bytes, want at most {MAX_FRAME}"):
        FrameReader().feed((MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(FormatError, match="frame: 11 bytes, want at most 10"):
        FrameReader(max_frame=10).feed(frame(bytes(11)))
    with pytest.raises(FormatError, match="frame: "):
        frame(bytes(MAX_FRAME + 1))
    whole = frame(bytes(MAX_FRAME + 1), max_frame=MAX_FRAME + 1)
    assert FrameReader(max_frame=MAX_FRAME + 1).feed(whole) == [bytes(MAX_FRAME + 1)]
