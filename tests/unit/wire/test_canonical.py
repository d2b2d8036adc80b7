"""Mirrors strongroom/wire/canonical.py. The key order is the example of RFC 8785, section 3.2.3."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, b64, b64u, pack_json, parse_json, unb64, unb64u

WHOLE = st.integers(-(2**53) + 1, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def test_keys_are_ordered_by_utf16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    packed = pack_json({name: n for n, name in enumerate(names)})
    assert packed == '{"\\r":1,"1":3,"\u0080":5,"\u00f6":6,"\u20ac":0,"\U0001f600":4,"\ufb33":2}'.encode()


def test_text_is_escaped_no_more_than_it_must_be() -> None:
    packed = pack_json(['\x00\x08\t\n\x0c\r\x1f"\\/\x7f\u2028é'])
    assert packed == '["\\u0000\\b\\t\\n\\f\\r\\u001f\\"\\\\/\x7f\u2028é"]'.encode()


@given(VALUES)
def test_what_is_packed_parses_back_and_packs_the_same(value: Any) -> None:
    packed = pack_json(value)
    assert parse_json(packed, "x") == value
    assert pack_json(parse_json(packed, "x")) == packed


@pytest.mark.parametrize("value", [1.0, 2**53, -(2**53), b"x", (1,), {1: 2}, "\ud800", {"\ud800": 1}])
def test_values_without_a_canonical_form_are_refused(value: Any) -> None:
    with pytest.raises(FormatError, match=r"^json: "):
        pack_json(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "key 'a' appears twice"),
        (b'{"b":{"a":1,"\\u0061":2}}', "key 'a' appears twice"),
        (b"NaN", "want a finite number"),
        (b"-Infinity", "want a finite number"),
        (b"1.0", "want a whole number"),
        (b"1e3", "want a whole number"),
        (b"18446744073709551616", "want at most 64 bits"),
        (b"9" * 5000, "want at most 64 bits"),
        (b"{} {}", "not JSON at byte 3: extra data"),
        (b"", "not JSON at byte 0"),
        (b'["a', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'"\xff"', "not UTF-8 text"),
        (b'"\\ud800"', "not UTF-8 text"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 17 + b"]" * 17, "nested deeper than 16 levels"),
        (b"[" * 100_000, "nested deeper than 16 levels"),
        (b'"' + b"x" * (1 << 20) + b'"', "want at most 1048576"),
    ],
    ids=lambda v: v[:24] if isinstance(v, bytes) else None,
)
def test_bad_json_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=f"^thing: .*{why}"):
        parse_json(data, "thing")


@pytest.mark.parametrize(
    "data", [b"[" + b"[]," * 9 + b"1]", b'[""' + b',""' * 9 + b"]", b'["' + b'\\"' * 80 + b'"]']
)
def test_values_are_counted_before_any_is_made(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^thing: more than 9 values"):
        parse_json(data, "thing", max_values=9)
    assert parse_json(data, "thing", max_values=20)


def test_brackets_that_close_nothing_are_refused_at_the_first() -> None:
    with pytest.raises(FormatError, match="not JSON at byte 0"):
        parse_json(b"]" * (1 << 20), "thing")


def test_brackets_inside_text_are_no_depth() -> None:
    value: JSON = ['"' + "[{" * 500 + "\\"]
    assert parse_json(pack_json(value), "x") == value


def test_an_unclosed_string_of_quotes_is_refused_at_once() -> None:
    with pytest.raises(FormatError, match="not JSON"):
        parse_json(b'"' + b'\\"' * 500_000, "x")


def test_fractions_are_read_only_where_the_format_has_them() -> None:
    assert parse_json(b'{"temperature":0.5}', "x", floats=True) == {"temperature": 0.5}
    with pytest.raises(FormatError, match="want a finite number"):
        parse_json(b"1e999", "x", floats=True)


def test_sixty_four_bits_are_read() -> None:
    assert parse_json(b"18446744073709551615", "x") == 2**64 - 1


@given(st.binary(max_size=70))
def test_base64_round_trips(data: bytes) -> None:
    assert unb64u(b64u(data), "x") == data
    assert unb64(b64(data), "x") == data
    assert b64(data).encode() == base64.b64encode(data)


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "A+", "A/", "AA\n", " AA", "AAA=", "Ä", "AAAAA"])
def test_only_canonical_base64url_is_read(text: str) -> None:
    with pytest.raises(FormatError, match=r"^x: "):
        unb64u(text, "x")


@pytest.mark.parametrize(
    "text", ["A", "AA", "AB==", "A-==", "AA==\n", "A===", "=AAA", "AA=A", "AAA", "AA==AA=="]
)
def test_only_canonical_base64_is_read(text: str) -> None:
    with pytest.raises(FormatError, match=r"^x: "):
        unb64(text, "x")
