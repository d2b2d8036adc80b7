"""A volume that has to be what a side manifest says: every name found where it was, and no other name beside it.

Names and attributes come from the manifest. What the store says about them is compared, never believed.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from strongroom.errors import MachineError, VerifyError
from strongroom.host.gocryptfs.directory import open_directory, words
from strongroom.host.gocryptfs.walk import MAX_NAMES, SIDE_NAME, join, list_names, shown
from strongroom.host.stored import Item
from strongroom.sealed.gocryptfs.names import NameCipher
from strongroom.sealed.gocryptfs.side import SideManifest
from strongroom.sealed.gocryptfs.side_entries import Directory, Entry, File, HardLink, Symlink
from strongroom.sealed.paths import parent

_KINDS: Final = {Directory: stat.S_IFDIR, File: stat.S_IFREG, HardLink: stat.S_IFREG, Symlink: stat.S_IFLNK}


def find_pinned(top: int, side: SideManifest, names: NameCipher) -> Iterator[tuple[File, bytes, int]]:
    """Every file, its path on disk, and the directory it lies in, which is open until the next is asked for.

    Raises VerifyError for a name that is missing, of another kind, or not in the manifest.
    """
    inside: dict[str, list[Entry]] = defaultdict(list)
    for entry in side.entries:
        inside[parent(entry.path)].append(entry)
    yield from _below(top, "", b"", inside, names)


def pinned_items(side: SideManifest, keys: Mapping[str, int]) -> Iterator[Item]:
    """The entries as whoever serves the volume wants them. `keys` has the key of each file, by path."""
    files = {entry.path: entry for entry in side.entries if isinstance(entry, File)}
    for entry in side.entries:
        path = entry.path.encode()
        match entry:
            case Symlink():
                target = entry.target.encode()
                mode = stat.S_IFLNK | 0o777
                yield Item(path=path, mode=mode, mtime_ns=_ns(entry), size=len(target), target=target)
            case Directory():
                yield Item(path=path, mode=stat.S_IFDIR | entry.mode, mtime_ns=_ns(entry))
            case _:
                file = files[entry.same] if isinstance(entry, HardLink) else entry
                mode, key = stat.S_IFREG | file.mode, keys.get(file.path)
                yield Item(path=path, mode=mode, mtime_ns=_ns(file), size=file.size, key=key)


def _ns(entry: Directory | File | Symlink) -> int:
    return entry.mtime * 10**9 + entry.nanos


def _below(
    fd: int, path: str, stored: bytes, inside: Mapping[str, list[Entry]], names: NameCipher
) -> Iterator[tuple[File, bytes, int]]:
    wanted = {entry.stored.encode(): entry for entry in inside.get(path, ())}
    listed = list_names(fd, stored, MAX_NAMES)
    for name in sorted(listed - wanted.keys()):
        if not names.is_foreign(name, top=not stored) and (stored or name != SIDE_NAME):
            raise VerifyError(f"object {shown(join(stored, name))}: not in the side manifest")
    for name, entry in wanted.items():
        at = join(stored, name)
        if name not in listed:
            raise VerifyError(f"object {shown(at)}: missing")
        _check_kind(fd, name, at, entry)
        if isinstance(entry, File):
            yield entry, at, fd
        if isinstance(entry, Directory):
            below = open_directory(name, fd, f"directory {shown(at)}")
            try:
                yield from _below(below, entry.path, at, inside, names)
            finally:
                os.close(below)


def _check_kind(fd: int, name: bytes, stored: bytes, entry: Entry) -> None:
    try:
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except OSError as error:
        raise MachineError(f"object {shown(stored)}: {words(error)}") from error
    if stat.S_IFMT(mode) != _KINDS[type(entry)]:
        raise VerifyError(f"object {shown(stored)}: of another kind than in the side manifest")
