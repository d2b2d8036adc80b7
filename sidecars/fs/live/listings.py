"""Open directories: what the kernel has been told of each, so that it can go on where it stopped."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from sidecars.fs.live.nodes import Node, Nodes
from sidecars.fs.live.operations import Listed, Operations, refuse
from sidecars.fs.protocol.frames import ENTRY_SIZE, pack_dirent, pack_entry
from sidecars.fs.protocol.writing import Transfer, pack_attributes, pack_no_entry

_DOTS: Final = frozenset({".", ".."})
_NOTHING: Final = pack_no_entry(0)  # node 0: no reference is counted
_DIRENT_SIZE: Final = 24  # of a record, without its name
_UNKNOWN: Final = 2**32 - 1  # inode number of what is to be looked up


@dataclass(slots=True)
class _Listing:
    """`entries` as they were when the directory was last read from its start."""

    fh: int
    entries: list[Listed]


class Listings:
    """Usable from several threads; the kernel reads one open directory from one thread at a time."""

    def __init__(self, operations: Operations, nodes: Nodes, seconds: int) -> None:
        self._operations: Final = operations
        self._nodes: Final = nodes
        self._seconds: Final = seconds
        self._open: dict[int, _Listing] = {}
        self._numbers = count(1)

    def open(self, path: str) -> int:
        """A handle of our own."""
        listing = _Listing(self._operations.opendir(path), [])
        number = next(self._numbers)
        self._open[number] = listing
        return number

    def handle(self, number: int) -> int:
        """The operations' handle; OSError EBADF for one that is not open."""
        return self._listing(number).fh

    def close(self, number: int) -> None:
        if (listing := self._open.pop(number, None)) is not None:
            self._operations.releasedir("", listing.fh)

    def read(self, wanted: Transfer, path: str) -> bytes:
        """As many whole records as fit, from an offset on: a place in the listing."""
        records: list[bytes] = []
        entries, room = self._entries(wanted, path), wanted.size
        for index in range(wanted.offset, len(entries)):
            name, ino, kind = _parts(entries[index])
            record = pack_dirent(ino, index + 1, kind, os.fsencode(name))
            room -= len(record)
            if room < 0:
                break
            records.append(record)
        return b"".join(records)

    def read_plus(self, wanted: Transfer, directory: Node, path: str) -> bytes:
        """The same, each with what a LOOKUP would say, as it is now."""
        records: list[bytes] = []
        entries, room = self._entries(wanted, path), wanted.size
        prefix = path if path == "/" else f"{path}/"
        for index in range(wanted.offset, len(entries)):
            name, ino, kind = _parts(entries[index])
            raw, found = os.fsencode(name), _NOTHING
            room -= ENTRY_SIZE + _DIRENT_SIZE + (len(raw) + 7 & -8)
            if room < 0:
                break
            if name not in _DOTS:
                with suppress(OSError):  # it is listed all the same, and will be looked up
                    attrs = self._operations.getattr(prefix + name)
                    ino, kind = attrs.get("st_ino", ino), attrs["st_mode"] >> 12
                    node = self._nodes.found(directory, name, attrs)
                    found = pack_entry(node.id, pack_attributes(attrs), valid=self._seconds)
            records.append(found)
            records.append(pack_dirent(ino, index + 1, kind, raw))
        return b"".join(records)

    def _entries(self, wanted: Transfer, path: str) -> list[Listed]:
        listing = self._listing(wanted.fh)
        if wanted.offset == 0:
            listing.entries = list(self._operations.readdir(path, listing.fh))
        return listing.entries

    def _listing(self, number: int) -> _Listing:
        if (listing := self._open.get(number)) is None:
            refuse(errno.EBADF)
        return listing


def _parts(entry: Listed) -> tuple[str, int, int]:
    """Name, inode number and kind."""
    if isinstance(entry, str):
        return entry, _UNKNOWN, 0
    name, attrs, _ = entry
    return name, attrs.get("st_ino", _UNKNOWN), attrs.get("st_mode", 0) >> 12
