"""Every name of a volume, in clear, parents before what they hold.

The names say where to look and are not authentic: whoever stores the volume can move an object to another name of the
same directory. What this finds is as trustworthy as the bare format is.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from strongroom.errors import FormatError, MachineError, StrongroomError
from strongroom.host.gocryptfs.directory import open_directory, read_small, words
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.names import (
    DIRIV,
    DIRIV_SIZE,
    LONG_PREFIX,
    LONG_SUFFIX,
    MAX_ENCODED,
    ZERO_DIRIV,
    check_diriv,
)

MAX_NAMES: Final = 1 << 20
MAX_DEPTH: Final = 200
SIDE_NAME: Final = (
    b"strongroom.side"  # what a side manifest is called where it lies in the cipher directory itself
)
_KINDS: Final = frozenset({stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK})

Problem: TypeAlias = Callable[[StrongroomError], None]  # what is done about a name that cannot be served
Stray: TypeAlias = Callable[[bytes, str], None]  # told of what is no entry of the volume: path on disk, why


@dataclass(frozen=True, slots=True)
class Found:
    """One name. `above` is open until the next is asked for."""

    path: bytes
    stored: bytes  # path on disk
    status: os.stat_result = field(repr=False)
    above: int = -1
    target: bytes = b""

    @property
    def stored_name(self) -> bytes:
        return self.stored.rpartition(b"/")[2]


def fail(error: StrongroomError) -> None:
    """The Problem of whoever serves a volume: nothing of it, unless all of it can be."""
    raise error


def ignore(_stored: bytes, _why: str) -> None:
    """The Stray of whoever serves a volume: gocryptfs does not show such names either."""


def walk(top: int, ciphers: Ciphers, *, problem: Problem = fail, stray: Stray = ignore) -> Iterator[Found]:
    """All names below the directory `top`, sorted within each directory; `top` itself comes first."""
    walker = _Walker(ciphers, problem, stray)
    yield Found(b"", b"", os.fstat(top))
    yield from walker.below(top, b"", b"", 0)


class _Walker:
    def __init__(self, ciphers: Ciphers, problem: Problem, stray: Stray) -> None:
        self._ciphers = ciphers
        self._problem = problem
        self._stray = stray
        self._count = 0

    def below(self, fd: int, path: bytes, stored: bytes, depth: int) -> Iterator[Found]:
        if depth > MAX_DEPTH:
            raise FormatError(f"directory {shown(stored)}: more than {MAX_DEPTH} above it")
        try:
            names = self._names(fd, path, stored)
        except StrongroomError as error:
            return self._problem(error)
        for name, stored_name in sorted(names.items()):
            at, at_stored = join(path, name), join(stored, stored_name)
            try:
                status, target = self._look(fd, stored_name, at_stored)
            except StrongroomError as error:
                self._problem(error)
                continue
            if stat.S_IFMT(status.st_mode) not in _KINDS:
                self._stray(at_stored, "no file, directory or link")
                continue
            yield Found(at, at_stored, status, fd, target)
            if stat.S_ISDIR(status.st_mode):
                yield from self._inside(fd, at, at_stored, depth)

    def _inside(self, above: int, path: bytes, stored: bytes, depth: int) -> Iterator[Found]:
        try:
            fd = open_directory(stored.rpartition(b"/")[2], above, f"directory {shown(stored)}")
        except StrongroomError as error:
            return self._problem(error)
        try:
            yield from self.below(fd, path, stored, depth + 1)
        finally:
            os.close(fd)

    def _names(self, fd: int, path: bytes, stored: bytes) -> dict[bytes, bytes]:
        """Plain name -> name on disk."""
        listed = list_names(fd, stored, MAX_NAMES - self._count)
        self._count += len(listed)
        diriv = self._diriv(fd, stored)
        names: dict[bytes, bytes] = {}
        for entry in listed:
            if self._is_foreign(entry, listed, stored):
                continue
            try:
                name = self._ciphers.names.open(entry, diriv, self._long(fd, entry, stored))
            except FormatError as error:
                self._stray(join(stored, entry), str(error))
                continue
            except StrongroomError as error:
                self._problem(error)
                continue
            if name in names:
                raise FormatError(
                    f"directory {shown(stored)}: two names on disk for {shown(join(path, name))}"
                )
            names[name] = entry
        return names

    def _is_foreign(self, entry: bytes, listed: set[bytes], stored: bytes) -> bool:
        if not stored and entry == SIDE_NAME:
            return True
        if not self._ciphers.names.is_foreign(entry, top=not stored):
            return False
        if entry.startswith(LONG_PREFIX) and entry.removesuffix(LONG_SUFFIX) not in listed:
            self._stray(join(stored, entry), "the long name of nothing")
        return True

    def _diriv(self, fd: int, stored: bytes) -> bytes:
        if self._ciphers.settings.plaintext_names or not self._ciphers.settings.directory_ivs:
            return ZERO_DIRIV
        subject = f"{shown(join(stored, DIRIV))}"
        try:
            return check_diriv(read_small(DIRIV, fd, subject, most=DIRIV_SIZE))
        except FormatError as error:
            raise FormatError(f"directory {shown(stored)}: {error}") from None

    def _long(self, fd: int, entry: bytes, stored: bytes) -> bytes | None:
        if not self._ciphers.names.is_long(entry):
            return None
        subject = f"{shown(join(stored, entry))}{LONG_SUFFIX.decode()}"
        return read_small(entry + LONG_SUFFIX, fd, subject, most=MAX_ENCODED)

    def _look(self, fd: int, name: bytes, stored: bytes) -> tuple[os.stat_result, bytes]:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else None
        except OSError as error:
            raise MachineError(f"object {shown(stored)}: {words(error)}") from error
        if link is None:
            return status, b""
        try:
            return status, self._ciphers.attributes.open_target(link)
        except StrongroomError as error:
            raise type(error)(f"object {shown(stored)}: {error}") from None


def list_names(fd: int, stored: bytes, most: int) -> set[bytes]:
    """The names in a directory that is open; FormatError for more than `most`."""
    names = set[bytes]()
    try:
        with os.scandir(fd) as found:
            for entry in found:
                names.add(os.fsencode(entry.name))
                if len(names) > most:
                    raise FormatError(
                        f"directory {shown(stored)}: the volume has more than {MAX_NAMES} names"
                    )
    except OSError as error:
        raise MachineError(f"directory {shown(stored)}: {words(error)}") from error
    return names


def join(above: bytes, name: bytes) -> bytes:
    """A path below `above`, which is empty for the top."""
    return above + b"/" + name if above else name


def shown(stored: bytes) -> str:
    """A path fit for a line of text, whatever bytes it has."""
    return os.fsdecode(stored).encode("ascii", "backslashreplace").decode() or "at the top"
