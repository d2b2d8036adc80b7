"""Mirrors strongroom/measure/ovmf.py: images with a table at their end, whole and damaged."""

from uuid import UUID

import pytest

from strongroom.errors import FormatError
from strongroom.measure.ovmf import OVMF, PAGE, Section, SectionKind

RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
SECTIONS = (
    Section(0x80_0000, 2 * PAGE, SectionKind.ZEROS),
    Section(0x80_2000, PAGE, SectionKind.SECRETS),
    Section(0x80_3000, PAGE, SectionKind.CPUID),
    Section(0x81_0000, PAGE, SectionKind.KERNEL_HASHES),
)


def entry(guid: str, content: bytes, size: int | None = None) -> bytes:
    length = len(content) + 18 if size is None else size
    return content + length.to_bytes(2, "little") + UUID(guid).bytes_le


def image(
    sections: tuple[Section, ...] = SECTIONS,
    *,
    extra: bytes = b"",
    without: str = "",
    hashes: int = 0x81_0400,
) -> bytes:
    """Two pages that end as an OVMF build ends."""
    body = b"ASEV" + b"".join(n.to_bytes(4, "little") for n in (16 + 12 * len(sections), 1, len(sections)))
    body += b"".join(n.to_bytes(4, "little") for s in sections for n in (s.gpa, s.size, s.kind))
    metadata = bytes(2 * PAGE - 0x400 - len(body)) + body
    back = len(body) + 0x400
    table = extra
    for guid, value in ((METADATA, back), (HASHES, hashes), (RESET, 0x80_B004)):
        if guid != without:
            table += entry(guid, value.to_bytes(4, "little") + (bytes(4) if guid == HASHES else b""))
    footer = entry(FOOTER, b"", len(table) + 18)
    tail = table + footer + bytes(32)
    return metadata + bytes(0x400 - len(tail)) + tail


def test_what_an_image_says_of_itself() -> None:
    ovmf = OVMF.parse(image())
    assert ovmf.sections == SECTIONS
    assert (ovmf.hashes_gpa, ovmf.reset_eip, ovmf.gpa) == (0x81_0400, 0x80_B004, 0x1_0000_0000 - 2 * PAGE)


def test_an_image_without_metadata_has_no_sections() -> None:
    ovmf = OVMF.parse(image(without=METADATA))
    assert ovmf.sections == () and ovmf.hashes_gpa == 0x81_0400


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes, want pages"),
        (bytes(PAGE - 1), "4095 bytes, want pages"),
        (bytes(PAGE), "no table of GUIDs"),
        (image(without=RESET), "no reset block"),
        (image(extra=entry(RESET, bytes(4))), "is repeated or leaves the table"),
        (image(extra=b"x"), "1 bytes left over"),
        (image((Section(0x80_0000, PAGE, 7),)), "section of kind 0x7"),  # type: ignore[arg-type]
        (image((Section(0x80_0001, PAGE, SectionKind.ZEROS),)), "is not known"),
        (image((Section(0x80_0000, 1 << 30, SectionKind.ZEROS),)), "is not known"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        OVMF.parse(data)


def test_any_damage_to_the_tables_is_read_or_refused() -> None:
    data = image()
    for at in range(len(data) - 0x500, len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                OVMF.parse(bytes(damaged))
            except FormatError:
                continue
