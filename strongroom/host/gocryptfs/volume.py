"""A gocryptfs volume as a Source: names and sizes found once, objects opened and read on demand."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from strongroom.host.gocryptfs.directory import open_top, settings_of
from strongroom.host.gocryptfs.pinned import find_pinned, pinned_items
from strongroom.host.gocryptfs.reading import GocryptfsReader, Pins, Readable
from strongroom.host.gocryptfs.stored import StoredFile
from strongroom.host.gocryptfs.walk import walk
from strongroom.host.stored import Item
from strongroom.sealed.gocryptfs.batch import SIZE
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.side import SideManifest
from strongroom.sealed.gocryptfs.side_entries import File
from strongroom.sealed.keys import Octets


class GocryptfsVolume:
    """The items and readers of one opened volume. Hard links have the same key."""

    def __init__(
        self, items: tuple[Item, ...], files: tuple[Readable, ...], top: int, ciphers: Ciphers, *, unit: int
    ) -> None:
        self.items: Final = items
        self.unit: Final = unit
        self._files: Final = files
        self._top: Final = top
        self._ciphers: Final = ciphers

    @classmethod
    @contextmanager
    def open(cls, cipherdir: Path, *, master_key: Octets, side: SideManifest | None = None) -> Iterator[Self]:
        """Open the volume at `cipherdir`, for as long as its readers are at work. Each object is looked into once.

        With `side`, the volume has to be what it says: VerifyError for a name too many or too few, another size,
        another setting. Without, contents are as authentic as gocryptfs makes them, which is block by block, and a
        name that is not of the volume is passed over. Either way nothing is served of a volume with an object that
        cannot be one (FormatError).
        """
        with ExitStack() as stack:
            top = open_top(cipherdir)
            stack.callback(os.close, top)
            settings = settings_of(top)
            if side is not None:
                side.check_settings(settings)
            opening = _Opening(Ciphers.make(master_key, settings), top)
            if side is None:
                yield cls(*opening.bare(), top, opening.ciphers, unit=BLOCK)
            else:
                yield cls(*opening.pinned(side), top, opening.ciphers, unit=SIZE)

    def reader(self) -> GocryptfsReader:
        """Readers are for one thread each."""
        return GocryptfsReader(self._files, self._top, self._ciphers.content)


class _Opening:
    def __init__(self, ciphers: Ciphers, top: int) -> None:
        self.ciphers = ciphers
        self._top = top
        self._files: list[Readable] = []

    def bare(self) -> tuple[tuple[Item, ...], tuple[Readable, ...]]:
        items, known = list[Item](), dict[tuple[int, int], int]()
        for found in walk(self._top, self.ciphers):
            status = found.status
            item = Item(
                path=found.path, mode=status.st_mode, mtime_ns=status.st_mtime_ns, nlink=status.st_nlink
            )
            if stat.S_ISLNK(status.st_mode):
                item = replace(item, size=len(found.target), target=found.target)
            elif stat.S_ISREG(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if status.st_nlink == 1 or identity not in known:
                    self._files.append(self._look(found.stored, found.above))
                    known[identity] = len(self._files) - 1
                size = self._files[known[identity]].size
                item = replace(item, size=size, key=known[identity] if size else None)
            items.append(item)
        return _counted(items), tuple(self._files)

    def pinned(self, side: SideManifest) -> tuple[tuple[Item, ...], tuple[Readable, ...]]:
        keys = dict[str, int]()
        for file, stored, above in find_pinned(self._top, side, self.ciphers.names):
            found = self._look(stored, above, file)
            if file.size:
                keys[file.path] = len(self._files)
                self._files.append(replace(found, pins=Pins(side.digests_of(file), file.holes)))
        return _counted(list(pinned_items(side, keys))), tuple(self._files)

    def _look(self, stored: bytes, above: int, wanted: File | None = None) -> Readable:
        """What an object is, which has to be what is `wanted`. It is not kept open: there may be too many."""
        file = StoredFile.find(stored, above, self._top, self.ciphers.content)
        try:
            if wanted is not None:
                file.check(wanted.size, wanted.file_id)
            return Readable(stored, file.size, file.file_id)
        finally:
            file.close()


def _counted(items: list[Item]) -> tuple[Item, ...]:
    """The same, files with as many links as names were found for them."""
    counts = Counter(item.key for item in items if item.key is not None)
    return tuple(item if item.key is None else replace(item, nlink=counts[item.key]) for item in items)
