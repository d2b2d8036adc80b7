"""Mirrors strongroom/receipts/hashing.py."""

import re
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.receipts.hashing import MAX_COMMENT, BodyHash, StreamHash
from tests import ROOT

# What docs/formats/receipt.md says, as one expression over the whole body.
PAGE = (ROOT / "docs/formats/receipt.md").read_text()
DOCUMENTED = rb"(\A|(?<=\n\n)):[ -~]{0,65536}\n\n(?!\xEF\xBB\xBF)"
COMMENTS = re.compile(DOCUMENTED)
BOM = b"\xef\xbb\xbf"
TOKENS = st.sampled_from(
    [b"\n", b"\n\n", b":", b"\r", b"a", b"data: x\n\n", b": ping\n\n", b": strongroom-receipt {}\n\n",
     b": x\n\n", b"\x0b", b"\x1e", b"\x7f", b"\xff", "\u2028".encode(), b"\xef", b"\xef\xbb", BOM]
)  # fmt: skip
BODIES = st.lists(TOKENS, max_size=24).map(b"".join)


def bare(body: bytes) -> bytes:
    return COMMENTS.sub(b"", body)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(body)) for place in places} | {len(body)})
    return [body[low:high] for low, high in zip([0, *ends], ends, strict=False)]


def stream(pieces: list[bytes]) -> StreamHash:
    found = StreamHash()
    for piece in pieces:
        found.update(piece)
    return found


@given(st.lists(st.binary(max_size=64)))
def test_cuts_do_not_matter(pieces: list[bytes]) -> None:
    body = BodyHash()
    for piece in pieces:
        body.update(piece)
    assert body.digest() == sha256(b"".join(pieces)).digest()
    assert body.length == sum(map(len, pieces))


@pytest.mark.guarantee("G12")
@given(BODIES, st.lists(st.integers(0, 200), max_size=12))
@example(b"\n: x\n\n", [])
@example(b"\n: x\n\n", [1])
@example(b"\n\n: x\n\n", [1])
@example(b": a\n\n: b\n\n" + BOM + b"data: x\n\n", [10, 11])
@example(b": strongroom-receipt {}\n\n\xef\xbb", [])
@example(b": a\n\n: b\n\nx\n\n: c", [1, 2, 3, 4, 5, 6])
@example(b"x\n\n: a\rdata: y\n\n", [3, 9])
@example(b"x\n\n\n: a\n\n", [2, 4])
def test_a_stream_is_hashed_without_its_comments_however_it_was_cut(body: bytes, places: list[int]) -> None:
    found = stream(cut(body, places))
    assert found.digest() == sha256(bare(body)).digest()
    assert found.digest() == stream([body[at : at + 1] for at in range(len(body))]).digest()
    carried = [c for c in COMMENTS.finditer(body) if c[0].startswith(b": strongroom-receipt ")]
    assert found.receipts == [b"{}"] * min(len(carried), 2)


def test_the_page_says_the_same_expression() -> None:
    assert f"`{DOCUMENTED.decode()}`" in PAGE


@pytest.mark.guarantee("G12")
@given(BODIES)
@example(b": a\x0bdata: forged\n\n")
@example(b": a\x1edata: forged\n\n")
@example(": a\u2028data: forged\n\n".encode())
@example(b": a\xc2\x85data: forged\n\n")
@example(b": \xff\n\ndata: x\n\n")
@example(b": a\n\n" + BOM + b"data: x\n\n")
@example(BOM + b": a\n\ndata: x\n\n")
def test_what_is_left_out_says_nothing_to_any_reader(body: bytes) -> None:
    """A body has the hash of the body without its comments, so readers have to take them for the same."""
    without = bare(body)
    assert stream([body]).digest() == sha256(without).digest()
    for lines in READERS:
        assert events(lines(body)) == events(lines(without)), lines


def _by_the_standard(body: bytes) -> list[str]:
    """WHATWG: what is no UTF-8 is replaced, one byte order mark at the beginning is dropped."""
    return re.split("\r\n|\n|\r", body.decode("utf-8", "replace").removeprefix("\ufeff"))


def _as_httpx(body: bytes) -> list[str]:
    return body.decode("utf-8", "replace").splitlines()


def _as_openai(body: bytes) -> list[str]:
    """Its decoder raises at a line that is no UTF-8: what came before has been shown."""
    found = list[str]()
    for line in body.splitlines():
        try:
            found.append(line.decode())
        except UnicodeDecodeError:
            return [*found, "it stopped"]
    return found


READERS = (_by_the_standard, _as_httpx, _as_openai)


def events(lines: list[str]) -> list[list[str]]:
    """What a reader of server-sent events dispatches, and what it was left with at the end."""
    found, event = list[list[str]](), list[str]()
    for line in lines:
        if not line and event:
            found, event = [*found, event], []
        elif line and not line.startswith(":"):
            event = [*event, line]
    return [*found, event]


def test_a_receipt_comment_at_the_very_end_is_found() -> None:
    carried = b": strongroom-receipt {}\n\n"
    assert stream([carried]).receipts == [b"{}"]
    assert stream([carried, BOM[:2]]).receipts == [b"{}"]
    assert stream([carried, BOM]).receipts == []
    assert stream([carried * 3]).receipts == [b"{}", b"{}"]


@pytest.mark.parametrize("length", [MAX_COMMENT - 1, MAX_COMMENT, MAX_COMMENT + 1])
def test_a_comment_is_held_up_to_its_longest_and_no_longer(length: int) -> None:
    body = b"data: 1\n\n:" + b"x" * length
    found = StreamHash()
    for piece in (body[:100], body[100:-1], body[-1:], b"\n", b"\n", b"data: 2\n\n"):
        found.update(piece)
    assert len(found._held) <= MAX_COMMENT + 3
    comment = length <= MAX_COMMENT
    want = b"data: 1\n\ndata: 2\n\n" if comment else body + b"\n\ndata: 2\n\n"
    assert found.digest() == sha256(want).digest()


def test_the_digest_may_be_asked_for_in_between() -> None:
    found = stream([b"data: 1\n\n", b": pi"])
    assert found.digest() == sha256(b"data: 1\n\n: pi").digest()
    found.update(b"ng\n\n")
    assert found.digest() == sha256(b"data: 1\n\n").digest()
