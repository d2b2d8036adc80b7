"""Mirrors strongroom/verify/intel_json.py."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from strongroom.errors import FormatError
from strongroom.verify.intel_json import MAX_BYTES, Member, SignedJSON

SIGNATURE = bytes(range(64))


def member(text: str) -> Member:
    return Member.parse(text.encode(), "doc")


def test_the_object_is_cut_out_as_it_stands() -> None:
    inner = b'{"b": 1 , "a":{"x":[{}]}}'
    document = b'{"tcbInfo":' + inner + b',"signature":"' + SIGNATURE.hex().encode() + b'"}'
    parts = SignedJSON.parse(document, "tcbInfo")
    assert parts == SignedJSON(inner, SIGNATURE)
    assert parts.pack("tcbInfo") == document


GOOD = SignedJSON(b'{"a":1}', SIGNATURE).pack("tcbInfo")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        GOOD[:-1],
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b"tcbInfo", b"enclaveIdentity"),
        GOOD.replace(b",", b", "),
        GOOD.replace(b"00", b"0", 1),
        GOOD.replace(b"00", b"0g", 1),
        b'{"tcbInfo' + GOOD[-145:],
        GOOD.ljust(MAX_BYTES + 1),
    ],
)
def test_any_other_document_is_refused(document: bytes) -> None:
    with pytest.raises(FormatError, match="tcbInfo: "):
        SignedJSON.parse(document, "tcbInfo")


def test_a_second_member_cannot_hide_behind_the_first() -> None:
    smuggled = SignedJSON.parse(
        SignedJSON(b'{"a":1},"tcbInfo":{"a":2}', SIGNATURE).pack("tcbInfo"), "tcbInfo"
    )
    with pytest.raises(FormatError, match="not JSON at byte 7"):
        Member.parse(smuggled.signed, "tcb info")


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', "[]", "1", '{"a":NaN}', '{"a":1}x', '{"a":1.5}', "{" * 99])
def test_only_one_whole_object_is_read(text: str) -> None:
    with pytest.raises(FormatError, match="doc: "):
        member(text)


def test_reads_typed_members() -> None:
    doc = member(
        '{"o":{"n":3},"l":[{"n":4}],"t":"x","w":["A","B"],"h":"aBff","m":"2026-02-28T01:02:03Z","n":5}'
    )
    assert doc.member("o").number("n", most=3) == 3
    assert [item.number("n", most=9) for item in doc.members("l", most=1)] == [4]
    assert doc.text("t") == "x"
    assert (doc.texts("w", most=2), doc.texts("none", most=2)) == (("A", "B"), ())
    assert doc.octets("h", 2) == b"\xab\xff"
    assert doc.moment("m") == datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC)
    doc.want("n", 5)
    assert "n" in doc and "x" not in doc


@pytest.mark.parametrize(
    "text",
    [
        "1",
        '"x"',
        "true",
        "-1",
        "300",
        '"2026-02-30T00:00:00Z"',
        '"2026-02-28T00:00:00+00:00"',
        '["ok", 1]',
        '["ok", "a\\u202eb"]',
        "[{},{},{}]",
        "null",
    ],
)
def test_everything_else_is_refused_with_its_path(text: str) -> None:
    doc = member(f'{{"a":{text}}}')
    readings: list[Callable[[], object]] = [
        lambda: doc.member("a"),
        lambda: doc.members("a", most=2),
        lambda: doc.texts("a", most=2),
        lambda: doc.number("a", most=0),
        lambda: doc.octets("a", 2),
        lambda: doc.moment("a"),
        lambda: doc.want("a", 2),
        lambda: doc.member("b"),
    ]
    for read in readings:
        with pytest.raises(FormatError, match=r"doc\.[ab]"):
            read()


def test_true_is_not_one() -> None:
    with pytest.raises(FormatError):
        member('{"a":true}').want("a", 1)
    with pytest.raises(FormatError):
        member('{"a":1}').text("a")
