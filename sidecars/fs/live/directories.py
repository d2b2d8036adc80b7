"""The directories of a gocryptfs volume: descriptors kept open, names deciphered once, bookkeeping files kept right.

Everything is done relative to a descriptor and follows no link: whoever stores the volume chooses what lies in it.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import filterfalse, islice
from threading import Lock
from typing import Final

from sidecars.fs.live.names import Names
from sidecars.fs.live.operations import refuse
from strongroom.errors import FormatError, MachineError, StrongroomError
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.names import (
    DIRIV,
    DIRIV_SIZE,
    LONG_SUFFIX,
    MAX_ENCODED,
    ZERO_DIRIV,
    StoredName,
    check_diriv,
)

MOST: Final = 512  # directories held open
_FRESH: Final = 1.0  # seconds that a descriptor of a shared store is taken for the directory of its path
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SIDE: Final = b"strongroom.side"  # a side manifest that is kept in the cipher directory


class Directory:
    """One directory of the store. Its descriptor is closed when nobody refers to it any more."""

    __slots__ = ("_ciphers", "_names", "_safe", "_top", "_unsafe", "born", "diriv", "fd")

    def __init__(
        self, fd: int, ciphers: Ciphers, names: Names, *, top: bool = False, furnish: bool = True
    ) -> None:
        """Takes the descriptor over. OSError or MachineError when the directory's IV cannot be read.

        An empty directory without an IV gets one, if it may be furnished: it is new, or a crash came before its IV.
        Nothing has a name under the old one.
        """
        self.fd: Final = fd
        self.born: Final = time.monotonic()
        self._ciphers: Final = ciphers
        self._top: Final = top
        self._names: Final = names
        self._safe: set[bytes] = set()  # bookkeeping files that the store has kept
        self._unsafe: set[bytes] = set()  # those made here, that it may not have kept yet
        self.diriv: Final = self._read_diriv(furnish) if ciphers.settings.directory_ivs else ZERO_DIRIV

    def __del__(self) -> None:
        os.close(self.fd)

    def store(self, name: str) -> StoredName:
        """What a name is called on disk. OSError for one that the directory cannot hold."""
        stored = self._names.store(name, self.diriv)
        if self._ciphers.settings.plaintext_names and self._is_foreign(stored.on_disk):
            refuse(errno.EPERM)
        return stored

    def names(self) -> list[str]:
        """Every name. What is no entry of the volume is passed over, as gocryptfs does."""
        found: list[str] = []
        known, diriv = self._names.known, self.diriv
        with self._entries() as entries:
            for entry in entries:
                on_disk = os.fsencode(entry.name)
                if (name := known(on_disk, diriv)) is None or self._top:
                    if self._is_foreign(on_disk):
                        continue
                    name = name or self._open(on_disk)
                if name is not None:
                    found.append(name)
        return found

    def opens(self) -> bool:
        """Whether a name opens under this key, or there is none to try."""
        with self._entries() as entries:
            on_disk = (os.fsencode(entry.name) for entry in entries)
            tried = [
                self._open(name) is not None for name in islice(filterfalse(self._is_foreign, on_disk), 100)
            ]
        return any(tried) or not tried

    def is_empty(self) -> bool:
        with self._entries() as entries:
            return all(self._is_foreign(os.fsencode(entry.name)) for entry in entries)

    @property
    def is_unsafe(self) -> bool:
        """Whether a long name was made here that the store may not have kept."""
        return any(name != DIRIV for name in self._unsafe)

    @contextmanager
    def _entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """A look of its own: descriptors that were copied share their place in the directory."""
        fd = os.open(".", _DIRECTORY, dir_fd=self.fd)
        try:
            with os.scandir(fd) as entries:
                yield entries
        finally:
            os.close(fd)

    # Bookkeeping files

    def add_long(self, stored: StoredName) -> bool:
        """Keep the whole of a long name, before anything is called by its hash; whether it was not there yet."""
        if stored.long is None:
            return False
        name = stored.on_disk + LONG_SUFFIX
        try:
            self._write(name, stored.long)
        except FileExistsError:
            if self._read(name, MAX_ENCODED) == stored.long:
                return False
            os.unlink(name, dir_fd=self.fd)  # cut by a crash: nothing is called by this hash yet
            self._write(name, stored.long)
        return True

    def drop_long(self, stored: StoredName) -> None:
        """After nothing is called by its hash any more."""
        if stored.long is not None:
            self._forget(stored.on_disk + LONG_SUFFIX)
            with suppress(FileNotFoundError):
                os.unlink(stored.on_disk + LONG_SUFFIX, dir_fd=self.fd)

    def add_diriv(self) -> None:
        """Give back the IV that drop_diriv() took away."""
        if self._ciphers.settings.directory_ivs:
            self._write(DIRIV, self.diriv)

    def drop_diriv(self) -> None:
        """So that the directory can be removed; it has to be empty."""
        if self._ciphers.settings.directory_ivs:
            self._forget(DIRIV)
            os.unlink(DIRIV, dir_fd=self.fd)

    def settle(self, stored: StoredName | None = None) -> None:
        """Have the store keep what it takes to read one name in this directory, or any that were made here."""
        wanted = {DIRIV} if self._ciphers.settings.directory_ivs else set[bytes]()
        if stored is None:
            wanted |= self._unsafe
        elif stored.long is not None:
            wanted.add(stored.on_disk + LONG_SUFFIX)
        for name in wanted - self._safe:
            with suppress(FileNotFoundError):
                fd = os.open(name, _READ, dir_fd=self.fd)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            self._safe.add(name)
            self._unsafe.discard(name)

    def _forget(self, name: bytes) -> None:
        self._safe.discard(name)
        self._unsafe.discard(name)

    def _read_diriv(self, furnish: bool) -> bytes:
        try:
            return check_diriv(self._read(DIRIV, DIRIV_SIZE))
        except (FileNotFoundError, FormatError) as error:
            if not furnish or not self.is_empty():
                raise MachineError(f"inode {os.fstat(self.fd).st_ino}: directory without its IV") from error
        with suppress(FileNotFoundError):
            os.unlink(DIRIV, dir_fd=self.fd)  # cut by a crash
        diriv = os.urandom(DIRIV_SIZE)
        self._write(DIRIV, diriv)
        return diriv

    def _is_foreign(self, on_disk: bytes) -> bool:
        if self._top and on_disk == _SIDE:
            return True
        return self._ciphers.names.is_foreign(on_disk, top=self._top)

    def _open(self, on_disk: bytes) -> str | None:
        try:
            long = None
            if self._ciphers.names.is_long(on_disk):
                long = self._read(on_disk + LONG_SUFFIX, MAX_ENCODED)
            return self._names.open(on_disk, self.diriv, long)
        except (OSError, StrongroomError):
            return None

    def _read(self, name: bytes, most: int) -> bytes:
        fd = os.open(name, _READ, dir_fd=self.fd)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise MachineError(f"{os.fsdecode(name)}: not a regular file")
            return os.read(fd, most + 1)
        finally:
            os.close(fd)

    def _write(self, name: bytes, content: bytes) -> None:
        file = os.open(name, _NEW, 0o444, dir_fd=self.fd)
        try:
            if os.write(file, content) != len(content):
                refuse(errno.ENOSPC)
        except OSError:
            os.unlink(name, dir_fd=self.fd)
            raise
        finally:
            os.close(file)
        self._unsafe.add(name)


class Directories:
    """Paths of plain names to open directories. `shared`: other machines rename and remove them too."""

    def __init__(self, top: int, ciphers: Ciphers, *, shared: bool = False) -> None:
        """Takes the descriptor over."""
        self._ciphers: Final = ciphers
        self._names: Final = Names(ciphers.names)
        self._shared: Final = shared
        self._lock: Final = Lock()
        self._open: dict[str, Directory] = {}
        self.top: Final = Directory(top, ciphers, self._names, top=True)

    def find(self, path: str) -> Directory:
        """The directory at a path from "/". OSError when there is none."""
        below: list[str] = []
        while (directory := self._held(path)) is None:
            path, _, name = path.rpartition("/")
            below.append(name)
        for name in reversed(below):
            path = f"{path}/{name}"
            directory = self._enter(directory, directory.store(name))
            self._hold(path, directory)
        return directory

    def _held(self, path: str) -> Directory | None:
        if path in ("", "/"):
            return self.top
        directory = self._open.get(path)
        if directory is not None and self._shared and time.monotonic() - directory.born > _FRESH:
            return None
        return directory

    def _enter(self, above: Directory, stored: StoredName) -> Directory:
        fd = os.open(stored.on_disk, _DIRECTORY, dir_fd=above.fd)
        return Directory(fd, self._ciphers, self._names, furnish=not self._shared)

    def _hold(self, path: str, directory: Directory) -> None:
        with self._lock:
            self._open.pop(path, None)
            oldest = self._open.pop(next(iter(self._open))) if len(self._open) >= MOST else None
            self._open[path] = directory
        if oldest is not None and oldest.is_unsafe:  # whoever uses it still holds it
            oldest.settle()

    def place(self, path: str) -> tuple[Directory, StoredName]:
        """Where a path other than "/" is on disk: the directory, and the name in it."""
        above, _, name = path.rpartition("/")
        directory = self.find(above)
        return directory, directory.store(name)

    def made(self, above: Directory, stored: StoredName) -> Directory:
        """A directory that was made this moment, with all it needs."""
        fd = os.open(stored.on_disk, _DIRECTORY, dir_fd=above.fd)
        return Directory(fd, self._ciphers, self._names)

    def drop(self, path: str) -> None:
        """Forget what is at a path and below: it was moved, or removed."""
        below = path + "/"
        with self._lock:
            for known in [known for known in self._open if known == path or known.startswith(below)]:
                del self._open[known]

    def settle(self, path: str) -> None:
        """Have the store keep what it takes to read the names on a path."""
        while path not in ("", "/"):
            path, _, name = path.rpartition("/")
            directory = self.find(path)
            directory.settle(directory.store(name))
