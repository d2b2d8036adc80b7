"""Collateral on disk: a directory of entries, each under the digest of its question.

    <directory>/<64 hex digits>.json     0600; replaced whole, or not at all

The disk is believed nothing. What is put in is examined before, and what is taken out is examined again: by whom it
is signed, for which question, and whether it holds at this moment. A newer issue is never replaced by an older one.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.collateral.entry import MAX_BYTES, Entry
from strongroom.host.collateral.item import Item, Parts, Signed, name_of
from strongroom.verify.roots import Roots

_NAME: Final = re.compile(r"([0-9a-f]{64})\.json")
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Store:
    """The entries of one directory, read afresh at every question."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(cls, directory: Path) -> Self:
        """The store there, made when it is absent, closed to other users: its entries name machines."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"{directory}: {_why(error)}") from error
        return cls(directory)

    def put(self, entry: Entry, *, roots: Roots, now: datetime) -> Signed:
        """Keep an entry that is genuine, holds at `now`, and is not older than the one it replaces.

        VerifyError or FormatError otherwise, and what was kept stays.
        """
        signed, kept = entry.item.examine(entry.parts, roots=roots, now=now), None
        with contextlib.suppress(VerifyError, FormatError):  # what is not good now is worth nothing
            kept = self.examine(entry.item, roots=roots, now=now)
        if kept is not None and signed.is_older_than(kept):
            raise VerifyError(
                f"{entry.item.title}: issued {signed.issued:%Y-%m-%d %H:%M}, older than what is kept, "
                f"of {kept.issued:%Y-%m-%d %H:%M}"
            )
        content = entry.pack()
        if len(content) > MAX_BYTES:
            raise FormatError(f"{entry.item.title}: {len(content)} bytes, want at most {MAX_BYTES}")
        try:
            self._write(f"{entry.name}.json", content)
        except OSError as error:
            raise MachineError(f"{self.directory}: {_why(error)}") from error
        return signed

    def take(self, item: Item, *, roots: Roots, now: datetime) -> Parts:
        """The parts of a kept item. VerifyError when it is absent, forged or does not hold at `now`."""
        entry = self.find(item)
        if entry is None:
            raise VerifyError(
                f"{item.title}: not among the collateral kept, want `strongroom collateral fill`"
            )
        _examine(entry, roots, now)
        return entry.parts

    def examine(self, item: Item, *, roots: Roots, now: datetime) -> Signed | None:
        """What is signed of a kept item, None when it is absent; else raises as `take` does."""
        entry = self.find(item)
        return None if entry is None else _examine(entry, roots, now)

    def find(self, item: Item) -> Entry | None:
        """The entry, not examined. FormatError when its file is not one, or answers another question."""
        try:
            return self._read(name_of(item))
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """The names of all entries. MachineError when there is no such directory."""
        try:
            found = [match[1] for name in os.listdir(self.directory) if (match := _NAME.fullmatch(name))]
        except OSError as error:
            raise MachineError(f"{self.directory}: {_why(error)}") from error
        return sorted(found)

    def entries(self) -> Iterator[Entry]:
        """All entries, not examined. Raises at the first file that is none."""
        for name in self.names():
            with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
                yield self._read(name)

    def read(self, name: str) -> Entry:
        """The entry of a name; MachineError when there is none."""
        try:
            return self._read(name)
        except FileNotFoundError:
            raise MachineError(f"{self.directory}: no entry {name}") from None

    def _read(self, name: str) -> Entry:
        where = self.directory / f"{name}.json"
        try:
            content = _content(where)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise MachineError(f"{where}: {_why(error)}") from error
        try:
            entry = Entry.parse(content)
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from None
        if entry.name != name:
            raise FormatError(f"{where}: answers another question, want the one of its name")
        return entry

    def _write(self, name: str, content: bytes) -> None:
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _replace(folder, name, content)
            os.fsync(folder)
        finally:
            os.close(folder)


def _content(where: Path) -> bytes:
    descriptor = os.open(where, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FormatError(f"{where}: not a file, want one")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _replace(folder: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}.new"  # two fills at once are no trouble
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o600, dir_fd=folder), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _examine(entry: Entry, roots: Roots, now: datetime) -> Signed:
    try:
        return entry.item.examine(entry.parts, roots=roots, now=now)
    except VerifyError as error:
        raise VerifyError(f"{entry.item.title}: {error}") from None
    except FormatError as error:
        raise FormatError(f"{entry.item.title}: {error}") from None


def _why(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()
