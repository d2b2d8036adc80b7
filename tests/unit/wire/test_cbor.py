"""Mirrors strongroom/wire/cbor.py."""

import contextlib
import random
from typing import Any, Final

import cbor2
import pytest

from strongroom.errors import FormatError
from strongroom.wire.cbor import CBOR, as_json, pack_cbor, parse_cbor

VALUE: Final[CBOR] = {
    "a": [1, -1, 2**64 - 1, True, None],
    "bb": b"\0\xff",
    "c": {"text": "ü"},
    "long": "x" * 300,
}
PACKED: Final = pack_cbor(VALUE)


def test_packs_canonically_and_back() -> None:
    assert parse_cbor(PACKED, "x") == VALUE
    assert pack_cbor({"bb": 1, "a": 2}) == bytes.fromhex("a2 6161 02 626262 01")  # shorter keys first
    assert pack_cbor([]) == b"\x80"


def test_as_json_spells_bytes_as_base64url() -> None:
    assert as_json({"a": [b"\xff\xfe", "t", 1, None]}) == {"a": ["__4", "t", 1, None]}


@pytest.mark.parametrize("n", range(len(PACKED)))
def test_nothing_shorter_parses(n: int) -> None:
    with pytest.raises(FormatError, match=r"^x: "):
        parse_cbor(PACKED[:n], "x")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("1801", "not in canonical form"),
        ("0102", "not in canonical form"),  # one byte left over
        ("190001", "not in canonical form"),
        ("a2 626262 01 6161 02", "not in canonical form"),  # keys out of order
        ("a2 6161 01 6161 02", "not CBOR"),
        ("9f01ff", "not CBOR"),
        ("5f4161ff", "not CBOR"),
        ("bf616101ff", "not CBOR"),
        ("f93c00", "holds a float"),
        ("f7", "holds a UndefinedType"),
        ("e5", "holds a CBORSimpleValue|not CBOR"),
        ("a1 01 02", "not CBOR|holds a dict"),
        ("a1 4161 02", "holds a dict"),
        ("61ff", "not CBOR"),
        ("9bffffffffffffffff", "not CBOR"),
        ("5bffffffffffffffff", "not CBOR"),
        ("1c", "not CBOR"),
        ("ff", "not CBOR"),
        ("81" * 17 + "00", "not CBOR"),
        ("c249010000000000000000", "not CBOR"),
    ],
)
def test_other_encodings_are_refused(data: str, why: str) -> None:
    with pytest.raises(FormatError, match=f"^x: ({why})"):
        parse_cbor(bytes.fromhex(data), "x")


def test_no_tag_is_ever_acted_on() -> None:
    for tag in (*range(300), 1004, 43000, 55799, 60000):
        inners: tuple[object, ...] = ("a", 1, [], {})
        for inner in inners:
            with pytest.raises(FormatError, match=r"^x: not CBOR"):
                parse_cbor(cbor2.dumps(cbor2.CBORTag(tag, inner)), "x")


@pytest.mark.parametrize("value", [1.0, 2**64, object(), {1: 2}, (1,), [set()]])
def test_what_is_no_value_of_ours_does_not_pack(value: Any) -> None:
    with pytest.raises(FormatError, match=r"^cbor: holds a "):
        pack_cbor(value)


def test_size_is_bounded() -> None:
    with pytest.raises(FormatError, match="x: 5 bytes, want at most 4"):
        parse_cbor(b"\x44aaaa", "x", max_bytes=4)


def test_any_flipped_bit_is_another_value_or_refused() -> None:
    for n in range(8 * 40):
        flipped = bytearray(PACKED)
        flipped[n // 8] ^= 1 << n % 8
        with contextlib.suppress(FormatError):
            assert parse_cbor(bytes(flipped), "x") != VALUE


def test_noise_never_escapes() -> None:
    noise = random.Random(1)
    for _ in range(3000):
        data = noise.randbytes(noise.randrange(1, 24))
        with contextlib.suppress(FormatError):
            assert pack_cbor(parse_cbor(data, "x")) == data
