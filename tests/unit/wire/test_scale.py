"""Mirrors strongroom/wire/scale.py. The compact numbers are those of the specification."""

import pytest

from strongroom.errors import FormatError
from strongroom.wire.scale import MAX_COMPACT, Scale, pack_compact, pack_items, pack_octets


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (0, "00"),
        (1, "04"),
        (42, "a8"),
        (63, "fc"),
        (64, "0101"),
        (69, "1501"),
        (16383, "fdff"),
        (16384, "02000100"),
        (65535, "feff0300"),
        (MAX_COMPACT, "feffffff"),
    ],
)
def test_compact_numbers(value: int, packed: str) -> None:
    assert pack_compact(value).hex() == packed
    reader = Scale(bytes.fromhex(packed), "x")
    assert reader.compact() == value
    reader.end()


@pytest.mark.parametrize(
    "packed", ["", "01", "fd", "02", "020001", "03", "0300000040", "0100", "02000000", "feff0000"]
)
def test_a_number_cut_off_or_longer_than_needed_is_refused(packed: str) -> None:
    with pytest.raises(FormatError, match=r"^x: "):
        Scale(bytes.fromhex(packed), "x").compact()


@pytest.mark.parametrize("value", [-1, MAX_COMPACT + 1])
def test_a_number_out_of_range_is_not_written(value: int) -> None:
    with pytest.raises(FormatError):
        pack_compact(value)


def test_lists_octets_and_text() -> None:
    data = pack_items([pack_octets(b"a"), pack_octets("é".encode())])
    reader = Scale(data, "x")
    assert reader.items(reader.octets, most=2) == [b"a", "é".encode()]
    reader.end()
    reader = Scale(data, "x")
    assert reader.items(reader.text, most=2) == ["a", "é"]
    with pytest.raises(FormatError, match="2 items, want at most 1"):
        Scale(data, "x").items(Scale(data, "x").text, most=1)


def test_a_length_beyond_the_end_is_refused() -> None:
    with pytest.raises(FormatError, match="bytes left"):
        Scale(pack_compact(5) + b"four", "x").octets()


def test_text_is_utf8() -> None:
    with pytest.raises(FormatError, match="not UTF-8"):
        Scale(pack_octets(b"\xff"), "x").text()
