"""The side manifest of a volume: everything in it read and verified once, and the pins of all of it written down."""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, VerifyError
from strongroom.host.gocryptfs.directory import open_top, settings_of
from strongroom.host.gocryptfs.scan import Scanner
from strongroom.host.gocryptfs.stored import StoredFile
from strongroom.host.gocryptfs.walk import Found, shown, walk
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.side import SideManifest, pin_digest
from strongroom.sealed.gocryptfs.side_entries import Directory, Entry, File, HardLink, Symlink
from strongroom.sealed.keys import Octets


def pin_volume(
    cipherdir: Path,
    *,
    master_key: Octets,
    epoch: int,
    name: str,
    holes: bool = False,
    progress: Callable[[int], None] = lambda _done: None,
) -> SideManifest:
    """What a volume holds now, every block of it verified; to be sealed by the caller.

    Nobody may write to it meanwhile. `progress` hears bytes of plaintext. Raises VerifyError for a block that does
    not verify, and, unless `holes` are wanted, for one that is a hole; ConfigError or FormatError for what no side
    manifest can list: names that are not UTF-8, links out of the tree, devices, names that are not of the volume.
    """
    top = open_top(cipherdir)
    try:
        ciphers = Ciphers.make(master_key, settings_of(top))
        pinning = _Pinning(top, ciphers, progress, holes=holes)
        entries, digests = pinning.entries()
    finally:
        os.close(top)
    return SideManifest(
        epoch=epoch,
        name=name,
        flags=ciphers.settings.flags,
        long_name_max=ciphers.settings.long_name_max,
        entries=entries,
        digests=digests,
    )


@dataclass(frozen=True, slots=True)
class _Content:
    size: int
    file_id: bytes | None
    holes: tuple[tuple[int, int], ...]
    digests: bytes = field(repr=False)


class _Pinning:
    def __init__(self, top: int, ciphers: Ciphers, progress: Callable[[int], None], *, holes: bool) -> None:
        self._top: Final = top
        self._ciphers: Final = ciphers
        self._progress: Final = progress
        self._allow_holes: Final = holes
        self._scanner: Final = Scanner(ciphers.content)
        self._done = 0

    def entries(self) -> tuple[tuple[Entry, ...], bytes]:
        """The table and the digests of its files, both in the order of paths."""
        names, contents = list[Found](), dict[tuple[int, int], _Content]()
        for found in walk(self._top, self._ciphers, stray=_refuse):
            if found.path:
                names.append(found)
            if stat.S_ISREG(found.status.st_mode) and _identity(found) not in contents:
                contents[_identity(found)] = self._content(found)
        entries, digests, first = list[Entry](), bytearray(), dict[tuple[int, int], str]()
        for found in sorted(names, key=lambda found: found.path):
            content = contents.get(_identity(found))
            entry = _entry(found, content, first)
            if isinstance(entry, File) and content is not None:
                digests += content.digests
            entries.append(entry)
        return tuple(entries), bytes(digests)

    def _content(self, found: Found) -> _Content:
        stored = StoredFile.find(found.stored, found.above, self._top, self._ciphers.content)
        digests, holes = bytearray(), list[int]()
        try:
            for scanned in self._scanner.scan(stored):
                if scanned.bad:
                    raise VerifyError(f"{stored.subject}: block {scanned.bad[0]}: tag does not verify")
                digests += pin_digest(scanned.pins)
                holes += scanned.holes
                self._progress(self._done + min((scanned.first + scanned.count) * BLOCK, stored.size))
        finally:
            stored.close()
        if holes and not self._allow_holes:
            raise VerifyError(f"{stored.subject}: block {holes[0]} is a hole: zeros that nothing vouches for")
        self._done += stored.size
        return _Content(stored.size, stored.file_id or None, _runs(holes), bytes(digests))


def _entry(found: Found, content: _Content | None, first: dict[tuple[int, int], str]) -> Entry:
    path, stored = _text(found.path), _text(found.stored.rpartition(b"/")[2])
    mtime, nanos = divmod(max(0, found.status.st_mtime_ns), 10**9)
    mode = found.status.st_mode & 0o777
    if stat.S_ISLNK(found.status.st_mode):
        return Symlink(path=path, stored=stored, mtime=mtime, nanos=nanos, target=_text(found.target))
    if content is None:
        return Directory(path=path, stored=stored, mode=mode, mtime=mtime, nanos=nanos)
    if (same := first.setdefault(_identity(found), path)) != path:
        return HardLink(path=path, stored=stored, same=same)
    return File(
        path=path,
        stored=stored,
        mode=mode,
        mtime=mtime,
        nanos=nanos,
        size=content.size,
        file_id=content.file_id,
        holes=content.holes,
    )


def _identity(found: Found) -> tuple[int, int]:
    return found.status.st_dev, found.status.st_ino


def _runs(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as runs: where one begins, and how long it is."""
    runs = list[tuple[int, int]]()
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return tuple(runs)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"name {shown(name)}: not UTF-8, which a side manifest wants") from None


def _refuse(stored: bytes, why: str) -> None:
    raise ConfigError(f"object {shown(stored)}: {why}; remove what is not of the volume")
