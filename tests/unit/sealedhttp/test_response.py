"""Mirrors strongroom/sealedhttp/response.py: every order of frames but one is refused, and every changed byte."""

import json
from itertools import pairwise
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, ProtocolError, StrongroomError, VerifyError
from strongroom.sealedhttp.response import MAX_DATA, Head, Opener, Sealer
from tests import ROOT

VECTORS: Final[dict[str, Any]] = json.loads((ROOT / "tests/vectors/sealed_body.json").read_text())
SECRET: Final = bytes.fromhex(VECTORS["request"]["secret"])
DIGEST: Final = bytes.fromhex(VECTORS["request"]["sha256"])
KEY_ID: Final = bytes.fromhex(VECTORS["key_id"])
NONCE: Final = bytes.fromhex(VECTORS["response"]["nonce"])
SEALED: Final = bytes.fromhex(VECTORS["response"]["sealed"])
PIECES: Final = [piece.encode() for piece in VECTORS["response"]["pieces"]]
HEADERS: Final = [("content-type", "text/event-stream; charset=utf-8"), ("x-strongroom-receipt", "a" * 32)]


def sealer(nonce: bytes = NONCE) -> Sealer:
    return Sealer(secret=SECRET, request=DIGEST, nonce=nonce, key_id=KEY_ID)


def opener(**change: bytes) -> Opener:
    return Opener(**{"secret": SECRET, "request": DIGEST, "key_id": KEY_ID, **change})


def frames(raw: bytes) -> list[bytes]:
    """What comes before the frames, and each frame with its length."""
    cuts = [0, 33]
    while cuts[-1] < len(raw):
        cuts.append(cuts[-1] + 4 + int.from_bytes(raw[cuts[-1] : cuts[-1] + 4], "big"))
    return [raw[a:b] for a, b in pairwise(cuts)]


def opened(raw: bytes, *, by: int = 1 << 30) -> tuple[Head | None, bytes]:
    reading = opener()
    body = b"".join(reading.feed(raw[at : at + by]) for at in range(0, len(raw), by))
    reading.require_end()
    return reading.head, body


def test_the_vector_is_what_we_write_and_read() -> None:
    writing = sealer()
    assert writing.head(200, HEADERS) + b"".join(map(writing.data, PIECES)) + writing.end() == SEALED
    assert opened(SEALED) == (Head(200, tuple(HEADERS)), b"".join(PIECES))


@pytest.mark.parametrize("by", [1, 2, 3, 5, 32, 33, 34, 100])
def test_any_cutting_on_the_way_gives_the_same(by: int) -> None:
    assert opened(SEALED, by=by) == (Head(200, tuple(HEADERS)), b"".join(PIECES))


def test_a_piece_is_out_as_soon_as_it_came() -> None:
    reading, parts = opener(), frames(SEALED)
    assert reading.feed(parts[0]) == b"" and reading.head is None
    assert reading.feed(parts[1]) == b"" and reading.head is not None
    assert [reading.feed(part) for part in parts[2:]] == [*PIECES, b""] and reading.ended


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_every_cut_is_seen(length: int) -> None:
    with pytest.raises(VerifyError, match="cut before its end"):
        opened(SEALED[:length])


@pytest.mark.parametrize("at", range(len(SEALED)))
def test_every_flipped_bit_is_seen(at: int) -> None:
    changed = bytearray(SEALED)
    changed[at] ^= 1 << (at % 8)
    with pytest.raises((FormatError, VerifyError)) as caught:
        opened(bytes(changed))
    _says_nothing(caught.value)


@pytest.mark.parametrize(
    "order",
    [[1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 3], [0, 1, 1, 2, 3], [0, 1, 2, 2, 3], [0, 3, 1, 2], [0, 0, 1, 2, 3], [3], [1]],
)  # fmt: skip
def test_moved_doubled_and_missing_frames_are_seen(order: list[int]) -> None:
    start, *parts = frames(SEALED)
    with pytest.raises(VerifyError):
        opened(start + b"".join(parts[n] for n in order))


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(FormatError, match="after its end"):
        opened(SEALED + b"\0")


@pytest.mark.parametrize("change", [{"secret": bytes(32)}, {"request": bytes(32)}, {"key_id": bytes(32)}])
def test_an_answer_is_for_one_request(change: dict[str, bytes]) -> None:
    with pytest.raises(VerifyError, match="frame 0 was changed"):
        opener(**change).feed(SEALED)


def test_one_request_answered_twice_has_two_keys() -> None:
    """A request that is sent again must not get two texts under one key and the same counters."""
    one, two = (sealer(bytes([n]) * 32) for n in (1, 2))
    assert one.head(200, HEADERS)[33:] != two.head(200, HEADERS)[33:]


def test_frames_of_two_answers_do_not_mix() -> None:
    other = sealer(bytes(32))
    start, *_ = frames(SEALED)
    with pytest.raises(VerifyError):
        opened(start + other.head(200, HEADERS)[33:])


@pytest.mark.parametrize("size", [0, 1, 16, 1 + MAX_DATA + 17, 0xFFFFFFFF])
def test_a_frame_of_no_lawful_size_is_refused_before_it_came(size: int) -> None:
    with pytest.raises(FormatError, match="a frame of"):
        opener().feed(SEALED[:33] + size.to_bytes(4, "big"))


def test_long_data_goes_in_several_frames() -> None:
    writing, body = sealer(), bytes(range(256)) * 600
    raw = writing.head(200, []) + writing.data(body) + writing.data(b"") + writing.end()
    assert len(frames(raw)) == 1 + 1 + 3 + 1
    assert opened(raw, by=10_000) == (Head(200), body)


@pytest.mark.parametrize(
    "steps", ["data", "end", "head head", "head end data", "head end end", "head end head"]
)
def test_a_writer_keeps_the_order(steps: str) -> None:
    writing = sealer()
    do = {"head": lambda: writing.head(200, []), "data": lambda: writing.data(b"x"), "end": writing.end}
    *lawful, wrong = steps.split()
    for step in lawful:
        do[step]()
    with pytest.raises(ProtocolError, match="is to come"):
        do[wrong]()


def _framed(*contents: bytes) -> bytes:
    """An answer of these plaintexts, as somebody who holds the key could make it."""
    writing = sealer()
    sealed = [writing._key.seal(content) for content in contents]
    return SEALED[:33] + b"".join(len(each).to_bytes(4, "big") + each for each in sealed)


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ([b"\2x"], "of kind 2, want a head"),
        ([b"\3"], "of kind 3, want a head"),
        ([b"\1{}"], "exactly headers and status"),
        ([b'\1{"headers":[],"status":true}'], "head is not canonical JSON|exactly headers|status"),
        ([b'\1{"headers":[],"status":99}'], "status is 99"),
        ([b'\1{"headers":[],"status":600}'], "status is 600"),
        ([b'\1{"status":200,"headers":[]}'], "not canonical"),
        ([b'\1{"headers":[["A","b"]],"status":200}'], "a header is not"),
        ([b'\1{"headers":[["a","b\\nc"]],"status":200}'], "a header is not"),
        ([b'\1{"headers":[["a"]],"status":200}'], "not a name and a value"),
        ([b'\1{"headers":[],"status":200}', b'\1{"headers":[],"status":200}'], "has no place here"),
        ([b'\1{"headers":[],"status":200}', b"\2"], "has no place here"),
        ([b'\1{"headers":[],"status":200}', b"\3x"], "has no place here"),
        ([b'\1{"headers":[],"status":200}', b"\4x"], "has no place here"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused(contents: list[bytes], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        opened(_framed(*contents))


def test_a_nonce_has_one_length() -> None:
    with pytest.raises(FormatError, match="nonce is 31 bytes"):
        sealer(bytes(31))


def _says_nothing(error: StrongroomError) -> None:
    assert not any(piece.decode() in str(error) for piece in PIECES)
