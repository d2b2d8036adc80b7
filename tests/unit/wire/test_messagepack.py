"""Mirrors strongroom/wire/messagepack.py."""

import random

import pytest

from strongroom.errors import FormatError
from strongroom.wire.messagepack import MessagePack, pack_messagepack, parse_messagepack

KNOWN: list[tuple[MessagePack, str]] = [
    (None, "c0"),
    (False, "c2"),
    (True, "c3"),
    (0, "00"),
    (127, "7f"),
    (128, "cc80"),
    (255, "ccff"),
    (256, "cd0100"),
    (65536, "ce00010000"),
    (2**32, "cf0000000100000000"),
    (2**64 - 1, "cfffffffffffffffff"),
    (-1, "ff"),
    (-32, "e0"),
    (-33, "d0df"),
    (-128, "d080"),
    (-129, "d1ff7f"),
    (-(2**31), "d280000000"),
    (-(2**63), "d38000000000000000"),
    ("", "a0"),
    ("é", "a2c3a9"),
    (b"", "c400"),
    (b"a", "c40161"),
    ([], "90"),
    ([1, [2]], "92019102"),
    ({}, "80"),
    ({"compact": True, "schema": 0}, "82a7636f6d70616374c3a6736368656d6100"),
]


@pytest.mark.parametrize(("value", "packed"), KNOWN)
def test_each_value_has_one_encoding(value: MessagePack, packed: str) -> None:
    assert pack_messagepack(value).hex() == packed
    parsed = parse_messagepack(bytes.fromhex(packed), "x")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("size", [15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_header(size: int) -> None:
    values: list[MessagePack] = ["x" * size, bytes(size), [0] * size, {f"{n}": 0 for n in range(size)}]
    for value in values:
        assert parse_messagepack(pack_messagepack(value), "x", max_bytes=1 << 24) == value


@pytest.mark.parametrize(
    "packed",
    [
        "",
        "cc7f",  # a number longer than needed
        "cd00ff",
        "ce0000ffff",
        "cf00000000ffffffff",
        "d001",
        "d0ff",
        "d1ff80",
        "d3ffffffff80000000",
        "d900",  # a length longer than needed
        "da00ff" + "61" * 255,
        "c5000161",
        "dc0000",
        "dd00000001c0",
        "de0000",
        "c1",
        "ca00000000",  # a float
        "cb0000000000000000",
        "d40000",  # an extension
        "c70000",
        "a1ff",  # no UTF-8
        "8101c0",  # a key that is no text
        "82a161c0a161c0",  # a key twice
        "8190c0",
        "0000",  # left over
        "ddffffffff",  # more items than bytes
        "dfffffffff",
        "c6ffffffff",
    ],
)
def test_anything_else_is_refused(packed: str) -> None:
    with pytest.raises(FormatError, match=r"^x: "):
        parse_messagepack(bytes.fromhex(packed), "x")


def test_depth_and_size_are_bounded() -> None:
    parse_messagepack(bytes([0x91] * 4 + [0xC0]), "x", max_depth=4)
    with pytest.raises(FormatError, match="too deep"):
        parse_messagepack(bytes([0x91] * 5 + [0xC0]), "x", max_depth=4)
    with pytest.raises(FormatError, match="want at most 3"):
        parse_messagepack(bytes(4), "x", max_bytes=3)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800"])
def test_what_has_no_encoding_is_not_written(value: MessagePack) -> None:
    with pytest.raises(FormatError):
        pack_messagepack(value)


def test_whatever_is_read_packs_to_the_same_bytes() -> None:
    source, read = random.Random(4), 0
    for _ in range(20_000):
        data = source.randbytes(source.randrange(1, 12))
        try:
            value = parse_messagepack(data, "x")
        except FormatError:
            continue
        read += 1
        assert pack_messagepack(value) == data
    assert read > 1000
