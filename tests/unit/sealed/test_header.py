"""Mirrors strongroom/sealed/header.py."""

import pytest

from strongroom.errors import FormatError
from strongroom.sealed.header import SIZE, ManifestHeader

HEADER = ManifestHeader(epoch=7, volume_id=bytes(range(16)), salt=b"s" * 32, commitment=b"c" * 32)
GOOD = HEADER.pack()


def test_round_trip() -> None:
    assert len(GOOD) == SIZE == 104
    assert ManifestHeader.parse(GOOD) == HEADER
    assert HEADER.chunk_size == 128 * 1024


@pytest.mark.parametrize("length", [n for n in range(2 * SIZE) if n != SIZE])
def test_only_the_exact_length_parses(length: int) -> None:
    with pytest.raises(FormatError, match=f"header is {length} bytes, want {SIZE}"):
        ManifestHeader.parse((GOOD * 2)[:length])


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, b"X", "magic is"),
        (8, b"\x00\x01", "version is 1, want 2"),
        (10, b"\x02", "suite is 2, want one of"),
        (11, b"\x0f", "chunk_log2 is 15, want 16..20"),
        (11, b"\x15", "chunk_log2 is 21, want 16..20"),
        (12, b"\x00\x00\x00\x01", "want zero"),
        (16, bytes(8), "epoch is 0, want 1.."),
        (16, b"\x00\x20" + bytes(6), "epoch is 9007199254740992, want"),
    ],
)
def test_rejects_and_says_why(offset: int, value: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        ManifestHeader.parse(GOOD[:offset] + value + GOOD[offset + len(value) :])


@pytest.mark.parametrize("name", ["volume_id", "salt", "commitment"])
def test_no_constructor_makes_a_bad_one(name: str) -> None:
    fields = {"epoch": 1, "volume_id": bytes(16), "salt": bytes(32), "commitment": bytes(32), name: b"short"}
    with pytest.raises(FormatError, match=f"{name} is 5 bytes"):
        ManifestHeader(**fields)  # type: ignore[arg-type]
