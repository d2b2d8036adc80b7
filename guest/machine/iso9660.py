"""One file out of an ISO 9660 image, read with bounds in user space instead of mounting a host's filesystem.

Understands what seed makers write: a primary volume, an optional Joliet one, files in the root directory, no
multi-extent files. Source: ECMA-119 sections 8.4, 9.1; Joliet specification section 2.
"""

from typing import BinaryIO, Final

from strongroom.errors import ConfigError, FormatError
from strongroom.wire.reader import Reader

SECTOR: Final = 2048
_FIRST_DESCRIPTOR: Final = 16  # sector number
_MAX_DESCRIPTORS: Final = 16
_MAX_DIRECTORY: Final = 64 << 10  # bytes
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_DIRECTORY_FLAG: Final = 0x02
_MULTI_EXTENT_FLAG: Final = 0x80


class AbsentFileError(ConfigError):
    """A sound image does not have that file."""


def read_file(medium: BinaryIO, name: str, *, label: str, max_bytes: int) -> bytes:
    """The contents of root file `name` on a volume called `label` (any case).

    Raises FormatError for a malformed image, ConfigError when the file is larger than `max_bytes`, and of that kind
    AbsentFileError when it is not there.
    """
    extent, size, joliet = _root_directory(medium, label)
    directory = _read(medium, extent, size, _MAX_DIRECTORY, "iso root directory")
    for found, at, length in _entries(directory, joliet=joliet):
        if found.casefold() == name.casefold():
            if length > max_bytes:
                raise ConfigError(f"userdata: {length} bytes, want at most {max_bytes}")
            return _read(medium, at, length, max_bytes, name)
    raise AbsentFileError(f"userdata: iso image has no file {name}")


def _root_directory(medium: BinaryIO, label: str) -> tuple[int, int, bool]:
    chosen: tuple[int, int, bool] | None = None
    for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MAX_DESCRIPTORS):
        descriptor = _read(medium, number, SECTOR, SECTOR, "iso volume descriptor")
        kind, magic = descriptor[0], descriptor[1:6]
        if magic != b"CD001":
            raise FormatError(f"iso volume descriptor: magic is {magic.hex()}, want {b'CD001'.hex()}")
        if kind == 255:
            break
        joliet = kind == 2 and descriptor[88:91] in _JOLIET
        if kind != 1 and not joliet:
            continue
        volume = descriptor[40:72].decode("utf-16-be" if joliet else "ascii", "replace").strip(" \0")
        if volume.casefold() != label.casefold():
            raise ConfigError(f"userdata: iso volume is called {volume!r}, want {label!r}")
        root = Reader(descriptor[156:190], "iso root record")
        root.take(2)
        extent = root.u32le()
        root.take(4)
        size = root.u32le()
        if chosen is None or joliet:  # Joliet names are the ones people chose
            chosen = (extent, size, joliet)
    if chosen is None:
        raise FormatError("iso image: no primary volume descriptor")
    return chosen


def _entries(directory: bytes, *, joliet: bool) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    for start in range(0, len(directory), SECTOR):
        sector = directory[start : start + SECTOR]
        at = 0
        while at < len(sector) and (length := sector[at]):
            record = Reader(sector[at : at + length], "iso directory record")
            if record.remaining != length:
                raise FormatError("iso directory record: crosses a sector, want it inside one")
            record.take(2)
            extent = record.u32le()
            record.take(4)
            size = record.u32le()
            record.take(11)
            flags = record.take(1)[0]
            record.take(6)
            identifier = record.take(record.take(1)[0])
            at += length
            if flags & _DIRECTORY_FLAG:
                continue
            if flags & _MULTI_EXTENT_FLAG:
                raise FormatError("iso directory record: multi-extent file, want one extent")
            text = identifier.decode("utf-16-be" if joliet else "ascii", "replace")
            found.append((text.partition(";")[0].rstrip("."), extent, size))
    return found


def _read(medium: BinaryIO, sector: int, size: int, cap: int, what: str) -> bytes:
    if size > cap:
        raise FormatError(f"{what}: {size} bytes, want at most {cap}")
    medium.seek(sector * SECTOR)
    data = medium.read(size)
    if len(data) != size:
        raise FormatError(f"{what}: got {len(data)} bytes, want {size}")
    return data
