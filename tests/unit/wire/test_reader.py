"""Mirrors strongroom/wire/reader.py."""

import pytest

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

EIGHT = bytes(range(1, 9))


def test_reads_in_order_and_ends() -> None:
    reader = Reader(b"\x01" + b"\x02\x00" + b"\x00\x03" + b"tail", "thing")
    assert (reader.u8(), reader.u16le(), reader.u16be()) == (1, 2, 3)
    assert reader.remaining == 4
    assert reader.rest() == b"tail"
    reader.end()


def test_integers_have_the_byte_order_of_their_name() -> None:
    assert Reader(EIGHT, "n").u32le() == 0x04030201
    assert Reader(EIGHT, "n").u32be() == 0x01020304
    assert Reader(EIGHT, "n").u64le() == 0x0807060504030201
    assert Reader(EIGHT, "n").u64be() == 0x0102030405060708


@pytest.mark.parametrize("n", [-1, 9, 1 << 40])
def test_never_reads_past_the_end(n: int) -> None:
    with pytest.raises(FormatError, match=f"thing: 8 bytes left at offset 0, want {n}"):
        Reader(EIGHT, "thing").take(n)


def test_left_over_bytes_are_refused() -> None:
    reader = Reader(EIGHT, "thing")
    reader.take(7)
    with pytest.raises(FormatError, match="thing: 1 bytes left over, want none"):
        reader.end()


def test_reserved_bytes_must_be_zero() -> None:
    reader = Reader(b"\0\0\0\x05", "thing")
    reader.zeros(2)
    with pytest.raises(FormatError, match=r"thing: reserved bytes \[2:4\] are 0005, want zero"):
        reader.zeros(2)
