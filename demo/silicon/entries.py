"""The report entries of configfs-tsm, without a file system: what the kernel does at mkdir, open and close.

Errors are OSErrors with the kernel's own errno. What it does that is easy to get wrong:

- a binary attribute is stored when its file is closed, and an error of the store is seen by nobody;
- a binary attribute read is filled once per open file, and reading makes the report if an option moved since;
- more than 64 bytes for `inblob` is EFBIG; sev_guest takes exactly 64, and says EINVAL at the read of a report;
- `generation` counts stores, not reports, and is not checked by the kernel.

Source: Linux drivers/virt/coco/guest/report.c, drivers/virt/coco/sev-guest/sev-guest.c, fs/configfs/file.c.
"""

import errno
import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NoReturn

PROVIDER: Final = b"sev_guest\n"
INBLOB_MAX: Final = 64  # bytes
TEXT_MAX: Final = 4095  # bytes taken by one write of a text attribute
PRIVLEVEL_FLOOR: Final = 0
PRIVLEVEL_MAX: Final = 3
_NUMBER: Final = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\n?")  # bases 16, 8, 10

NewReport = Callable[[bytes, int], tuple[bytes, bytes]]  # (report_data, privlevel) -> (outblob, auxblob)


class Attribute(Enum):
    """The attributes sev_guest shows without an SVSM: name, permission bits, binary."""

    GENERATION = ("generation", 0o444, False)
    PROVIDER = ("provider", 0o444, False)
    PRIVLEVEL = ("privlevel", 0o200, False)
    PRIVLEVEL_FLOOR = ("privlevel_floor", 0o444, False)
    INBLOB = ("inblob", 0o200, True)
    OUTBLOB = ("outblob", 0o444, True)
    AUXBLOB = ("auxblob", 0o444, True)

    def __init__(self, filename: str, mode: int, binary: bool) -> None:
        self.filename = filename
        self.mode = mode
        self.binary = binary


ATTRIBUTES: Final = {attribute.filename: attribute for attribute in Attribute}


@dataclass(slots=True)
class _Entry:
    dead: bool = False
    generation: int = 0
    read_generation: int = -1
    inblob: bytes = b""
    privlevel: int = 0
    outblob: bytes = b""
    auxblob: bytes = b""


@dataclass(slots=True)
class _File:
    entry: _Entry
    attribute: Attribute
    buffer: bytearray = field(default_factory=bytearray)
    filled: bool = False
    written: bool = False


class Entries:
    """Every entry and every open file. Single-threaded."""

    def __init__(self, new_report: NewReport) -> None:
        self._new_report = new_report
        self._entries: dict[str, _Entry] = {}
        self._files: dict[int, _File] = {}
        self._numbers = itertools.count(1)

    def names(self) -> list[str]:
        return list(self._entries)

    def make(self, name: str) -> None:
        if name in self._entries:
            _refuse(errno.EEXIST)
        self._entries[name] = _Entry()

    def drop(self, name: str) -> None:
        """The entry goes; files still open on it answer ENOENT."""
        if name not in self._entries:
            _refuse(errno.ENOENT)
        self._entries.pop(name).dead = True

    def open(self, name: str, attribute: Attribute, flags: int) -> int:
        """The number of a new open file. The attribute's direction binds root as well."""
        if name not in self._entries:
            _refuse(errno.ENOENT)
        access = flags & os.O_ACCMODE
        if access != os.O_RDONLY and not attribute.mode & 0o222:
            _refuse(errno.EACCES)
        if access != os.O_WRONLY and not attribute.mode & 0o444:
            _refuse(errno.EACCES)
        number = next(self._numbers)
        self._files[number] = _File(self._entries[name], attribute)
        return number

    def read(self, number: int, size: int, offset: int) -> bytes:
        file = self._files[number]
        if not file.filled:
            file.buffer[:] = self._value(file)
            file.filled = True
        return bytes(file.buffer[offset : offset + size])

    def write(self, number: int, value: bytes, offset: int) -> int:
        file = self._files[number]
        if not file.attribute.binary:
            self._store_privlevel(file.entry, value[:TEXT_MAX])
            return min(len(value), TEXT_MAX)
        file.written = True
        if offset + len(value) > INBLOB_MAX:
            _refuse(errno.EFBIG)
        file.buffer.extend(bytes(max(0, offset + len(value) - len(file.buffer))))
        file.buffer[offset : offset + len(value)] = value
        return len(value)

    def flush(self, number: int) -> None:
        """A descriptor of the file was closed: store what was written to it."""
        file = self._files[number]
        if file.written and not file.entry.dead:
            file.written = False
            file.entry.generation += 1
            file.entry.inblob = bytes(file.buffer)

    def release(self, number: int) -> None:
        self.flush(number)
        del self._files[number]

    def _value(self, file: _File) -> bytes:
        entry = file.entry
        if entry.dead:
            _refuse(errno.ENOENT)
        if file.attribute is Attribute.GENERATION:
            return b"%d\n" % entry.generation
        if file.attribute is Attribute.PROVIDER:
            return PROVIDER
        if file.attribute is Attribute.PRIVLEVEL_FLOOR:
            return b"%d\n" % PRIVLEVEL_FLOOR
        self._refresh(entry)
        return entry.auxblob if file.attribute is Attribute.AUXBLOB else entry.outblob

    def _refresh(self, entry: _Entry) -> None:
        if not entry.inblob:
            _refuse(errno.EINVAL)
        if entry.read_generation == entry.generation:
            return
        if len(entry.inblob) != INBLOB_MAX:
            _refuse(errno.EINVAL)
        entry.outblob, entry.auxblob = self._new_report(entry.inblob, entry.privlevel)
        entry.read_generation = entry.generation

    def _store_privlevel(self, entry: _Entry, text: bytes) -> None:
        if entry.dead:
            _refuse(errno.ENOENT)
        level = _kstrtouint(text)
        if not PRIVLEVEL_FLOOR <= level <= PRIVLEVEL_MAX:
            _refuse(errno.EINVAL)
        entry.generation += 1
        entry.privlevel = level


def _kstrtouint(text: bytes) -> int:
    found = _NUMBER.fullmatch(text)
    if found is None:
        _refuse(errno.EINVAL)
    bases = zip(found.groups(), (16, 8, 10), strict=True)
    value = next(int(digits, base) for digits, base in bases if digits)
    if value >= 1 << 32:
        _refuse(errno.ERANGE)
    return value


def _refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))
