"""Every block and every name of a volume, looked at once. What is wrong is said, and the look goes on."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from strongroom.errors import FormatError, MachineError, StrongroomError
from strongroom.host.gocryptfs.directory import open_top, settings_of
from strongroom.host.gocryptfs.scan import Scanned, Scanner
from strongroom.host.gocryptfs.stored import StoredFile
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from strongroom.host.gocryptfs.walk import Found, shown, walk
from strongroom.host.stored import MAX_READ
from strongroom.sealed.gocryptfs.attributes import PREFIX
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.config import Cipher
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.reverse import Purpose, derive
from strongroom.sealed.gocryptfs.side import SideManifest
from strongroom.sealed.keys import Octets


@dataclass(slots=True)
class Findings:
    """What was looked at. `problems` are sentences in the order found, `strays` names that are not of the volume."""

    directories: int = 0
    files: int = 0
    links: int = 0
    blocks: int = 0
    holes: int = 0  # blocks
    bytes: int = 0  # of plaintext
    strays: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_volume(
    cipherdir: Path,
    *,
    master_key: Octets,
    side: SideManifest | None = None,
    reverse: bool = False,
    progress: Callable[[int], None] = lambda _done: None,
) -> Findings:
    """Look at everything below `cipherdir`, against `side` where there is one.

    `reverse`: the volume is a copy of what `gocryptfs -reverse` shows, so that IVs tell the paths they belong to.
    `progress` hears bytes of plaintext. Raises what opening the volume as a whole raises; with `side`, that is also any
    name too many or too few.
    """
    if side is not None:
        with GocryptfsVolume.open(cipherdir, master_key=master_key, side=side) as volume:
            return _check_pinned(volume, side, progress)
    top = open_top(cipherdir)
    try:
        settings = settings_of(top)
        if reverse and settings.cipher is not Cipher.AES_SIV:
            raise FormatError(
                f"volume {cipherdir}: cipher is {settings.cipher.value}, reverse mode has AES-SIV"
            )
        return _Check(top, Ciphers.make(master_key, settings), progress, reverse=reverse).run()
    finally:
        os.close(top)


def _check_pinned(volume: GocryptfsVolume, side: SideManifest, progress: Callable[[int], None]) -> Findings:
    findings, reader, seen = Findings(), volume.reader(), set[int]()
    for item in volume.items:
        _count(findings, item.mode)
        if item.key is None or item.key in seen:
            continue
        seen.add(item.key)
        for offset in range(0, item.size, MAX_READ):
            length = min(MAX_READ, item.size - offset)
            try:
                reader.read(item.key, offset, length)
            except StrongroomError as error:
                findings.problems.append(str(error))
            progress(findings.bytes + offset + length)
        findings.bytes += item.size
        findings.blocks += -(-item.size // BLOCK)
    findings.holes = side.hole_count
    return findings


class _Check:
    def __init__(self, top: int, ciphers: Ciphers, progress: Callable[[int], None], *, reverse: bool) -> None:
        self._top: Final = top
        self._ciphers: Final = ciphers
        self._progress: Final = progress
        self._reverse: Final = reverse
        self._scanner: Final = Scanner(ciphers.content)
        self._findings: Final = Findings()

    def run(self) -> Findings:
        seen = set[tuple[int, int]]()
        for found in walk(self._top, self._ciphers, problem=self._problem, stray=self._stray):
            if found.path:
                _count(self._findings, found.status.st_mode)
            self._attributes(found)
            identity = (found.status.st_dev, found.status.st_ino)
            if stat.S_ISREG(found.status.st_mode) and identity not in seen:
                seen.add(identity)
                try:
                    self._content(found)
                except StrongroomError as error:
                    self._problem(error)
        return self._findings

    def _content(self, found: Found) -> None:
        stored = StoredFile.find(found.stored, found.above, self._top, self._ciphers.content)
        try:
            self._origin(found, stored)
            for scanned in self._scanner.scan(stored):
                self._blocks(stored, scanned)
        finally:
            stored.close()
        self._findings.bytes += stored.size

    def _blocks(self, stored: StoredFile, scanned: Scanned) -> None:
        self._findings.blocks += scanned.count
        self._findings.holes += len(scanned.holes)
        for number in scanned.bad:
            self._findings.problems.append(f"{stored.subject}: block {number}: tag does not verify")
        self._progress(self._findings.bytes + min((scanned.first + scanned.count) * BLOCK, stored.size))

    def _origin(self, found: Found, stored: StoredFile) -> None:
        """A reverse view tells by a file's id which path it has; names of one file share the id of one of them."""
        if not self._reverse or not stored.size or found.status.st_nlink > 1:
            return
        if stored.file_id != derive(found.stored, Purpose.FILE_ID):
            self._findings.problems.append(f"{stored.subject}: file id is that of another path")

    def _attributes(self, found: Found) -> None:
        # By way of the directory's descriptor: a link on the way is not followed, nor is one at its end.
        below = found.stored.rpartition(b"/")[2] or b"."
        way = f"/proc/self/fd/{found.above if found.path else self._top}/".encode() + below
        try:
            for name in os.listxattr(way, follow_symlinks=False):
                if (stored := os.fsencode(name)).startswith(PREFIX):
                    self._ciphers.attributes.open_name(stored)
                    value = os.getxattr(way, stored, follow_symlinks=False)
                    self._ciphers.attributes.open_value(value)
        except StrongroomError as error:
            self._findings.problems.append(f"object {shown(found.stored)}: {error}")
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA):
                self._problem(
                    MachineError(f"object {shown(found.stored)}: {error.strerror or 'failed'}".lower())
                )

    def _problem(self, error: StrongroomError) -> None:
        self._findings.problems.append(str(error))

    def _stray(self, stored: bytes, why: str) -> None:
        self._findings.strays.append(f"{shown(stored)}: {why}")


def _count(findings: Findings, mode: int) -> None:
    if stat.S_ISDIR(mode):
        findings.directories += 1
    elif stat.S_ISLNK(mode):
        findings.links += 1
    else:
        findings.files += 1
