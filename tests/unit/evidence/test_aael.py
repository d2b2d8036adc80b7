"""Mirrors strongroom/evidence/aael.py."""

from typing import Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.aael import AAELEntry

ENTRY: Final = AAELEntry("github.com/confidential-containers", "PullImage", '{"image": "a b"}')
DATA: Final = ENTRY.pack()


def test_an_entry_has_the_published_form() -> None:
    assert DATA[:4] == bytes.fromhex("4c454141")
    assert int.from_bytes(DATA[4:8], "little") == len(DATA) - 8
    assert AAELEntry.parse(DATA) == ENTRY


def test_no_other_length_parses() -> None:
    for n in range(len(DATA)):
        with pytest.raises(FormatError, match="aael entry"):
            AAELEntry.parse(DATA[:n])
    with pytest.raises(FormatError, match="1 bytes left over"):
        AAELEntry.parse(DATA + b"\0")


def test_a_changed_bit_is_refused_or_kept() -> None:
    for bit in range(8 * len(DATA)):
        changed = bytearray(DATA)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert AAELEntry.parse(bytes(changed)).pack() == changed
        except FormatError as error:
            assert str(error).startswith("aael entry")  # noqa: PT017


@pytest.mark.parametrize(
    "text", [b"", b"a", b"a b", b" a b", b"a  b", b"a b c\nd e f", b"\xff a b", b"a\tb c d"]
)
def test_other_shapes_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="aael entry"):
        AAELEntry.parse(DATA[:4] + len(text).to_bytes(4, "little") + text)


def test_content_is_bounded() -> None:
    with pytest.raises(FormatError, match="at most 65536 bytes"):
        AAELEntry("a", "b", "c" * 65537)
