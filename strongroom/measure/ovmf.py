"""What an OVMF image says of itself at its end: where its SNP pages go, and where other vCPUs start.

The table of GUIDed entries ends 32 bytes before the end of the image and is read backwards from its footer.
Source: edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm and OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Self
from uuid import UUID

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

PAGE: Final = 4096
MAX_BYTES: Final = 64 << 20
_SUBJECT: Final = "ovmf"
_END: Final = 1 << 32  # an image lies directly below 4 GiB
_FOOTER_FROM_END: Final = 32 + 18
_ENTRY: Final = 18  # u16 size, GUID
_FOOTER: Final = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_METADATA: Final = UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
_HASHES: Final = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
_RESET: Final = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
_MAX_SECTIONS: Final = 64
_MAX_SECTION: Final = 16 << 20  # bytes


class SectionKind(IntEnum):
    """What the VMM puts into the pages of a section."""

    ZEROS = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    KERNEL_HASHES = 0x10


@dataclass(frozen=True, slots=True)
class Section:
    gpa: int
    size: int  # bytes
    kind: SectionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class OVMF:
    """One firmware image and what its table names."""

    image: bytes
    sections: tuple[Section, ...]
    hashes_gpa: int | None  # where the table of kernel hashes goes
    reset_eip: int  # first instruction of every vCPU but the first

    @property
    def gpa(self) -> int:
        return _END - len(self.image)

    @classmethod
    def parse(cls, image: bytes) -> Self:
        """The image's own table; FormatError when it has none, as an image not built for SEV."""
        if not 0 < len(image) <= MAX_BYTES or len(image) % PAGE:
            raise FormatError(f"{_SUBJECT}: {len(image)} bytes, want pages of {PAGE}, {MAX_BYTES} at most")
        entries = _entries(image)
        if _RESET not in entries:
            raise FormatError(f"{_SUBJECT}: no reset block, want an image built for SEV-ES")
        hashes = entries.get(_HASHES)
        return cls(
            image=image,
            sections=_sections(image, entries),
            hashes_gpa=None if hashes is None else Reader(hashes, _SUBJECT).u32le(),
            reset_eip=Reader(entries[_RESET], _SUBJECT).u32le(),
        )


def _entries(image: bytes) -> Mapping[bytes, bytes]:
    at = len(image) - _FOOTER_FROM_END
    size = int.from_bytes(image[at : at + 2], "little")
    if image[at + 2 : at + _ENTRY] != _FOOTER or not _ENTRY <= size <= at + _ENTRY:
        raise FormatError(f"{_SUBJECT}: no table of GUIDs at its end")
    table = image[at + _ENTRY - size : at]
    found: dict[bytes, bytes] = {}
    while table:
        if len(table) < _ENTRY:
            raise FormatError(f"{_SUBJECT}: {len(table)} bytes left over in its table, want none")
        guid, size = table[-16:], int.from_bytes(table[-_ENTRY:-16], "little")
        if not _ENTRY <= size <= len(table) or guid in found:
            raise FormatError(
                f"{_SUBJECT}: table entry {UUID(bytes_le=guid)} is repeated or leaves the table"
            )
        found[guid] = table[len(table) - size : -_ENTRY]
        table = table[:-size]
    return MappingProxyType(found)


def _sections(image: bytes, entries: Mapping[bytes, bytes]) -> tuple[Section, ...]:
    if _METADATA not in entries:
        return ()
    back = Reader(entries[_METADATA], _SUBJECT).u32le()
    if not 0 < back <= len(image):
        raise FormatError(f"{_SUBJECT}: metadata {back} bytes from the end, want inside the image")
    reader = Reader(image[len(image) - back :], _SUBJECT)
    magic, size, version, count = reader.take(4), reader.u32le(), reader.u32le(), reader.u32le()
    if magic != b"ASEV" or version != 1 or count > _MAX_SECTIONS or size != 16 + 12 * count:
        raise FormatError(f"{_SUBJECT}: metadata is not SEV metadata version 1")
    return tuple(_section(reader) for _ in range(count))


def _section(reader: Reader) -> Section:
    gpa, size, kind = reader.u32le(), reader.u32le(), reader.u32le()
    if kind not in {*SectionKind} or gpa % PAGE or size % PAGE or not 0 < size <= _MAX_SECTION:
        raise FormatError(f"{_SUBJECT}: section of kind {kind:#x} at {gpa:#x}, {size} bytes, is not known")
    return Section(gpa, size, SectionKind(kind))
