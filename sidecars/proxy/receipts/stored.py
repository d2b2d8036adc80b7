"""The log's leaves in files that outlive a killed door, and end with the boot: the directory is memory.

    id          16 bytes, random, when the log is begun
    roots       a record for every segment that is forgotten: its subtree's root
    <number>    a segment: a record for each of its leaves, at most 2**HEIGHT

    record      32 bytes, and their keyed check with the log's id, the file's name and the place in it: 16 bytes

A record is written before its receipt is handed out, by one write that the kernel keeps whatever becomes of the
process. A kill may leave part of a record at the end, or one whose check fails: nobody was given its receipt, so it is
cut off. Anything else that does not check is damage, and the door does not start.
"""

import logging
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.receipts.log import ID
from strongroom.receipts.tree import SIZE, Tree

HEIGHT: Final = 16  # of a segment's subtree
_CHECK: Final = 16  # bytes
RECORD: Final = SIZE + _CHECK
_ROOTS: Final = "roots"
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_log: Final = logging.getLogger("strongroom.proxy")


class StoredLog:
    """One log. `directory` None: it lives as long as this object."""

    def __init__(
        self, directory: Path | None, *, key: bytes, fresh: bytes, keep: int, height: int = HEIGHT
    ) -> None:
        """Open the log in `directory`, or begin one there with the id `fresh`. Raises MachineError when it is damaged.

        At least `keep` leaves can be proven to be there, and fewer than two segments more.
        """
        self.id, self.tree = fresh, Tree()
        self._directory, self._key, self._height = directory, key, height
        self._segments = max(1, -(-keep >> height)) + 1
        self._file: int | None = None
        self._forgotten = 0  # segments
        self._left: list[Path] = []  # files of those that are still to go
        if directory is not None:
            try:
                self._open(directory)
            except OSError as error:
                raise MachineError(f"receipt log: {(error.strerror or 'failed').lower()}") from error

    def append(self, leaf: bytes) -> int:
        """Its index, once it is stored. MachineError when it cannot be: then it is not in the log."""
        index = self.tree.size
        number, place = index >> self._height, index & (1 << self._height) - 1
        try:
            if self._directory is not None:
                if not place:
                    self._begin(number)
                self._write(self._file, leaf, str(number), place)
        except OSError as error:
            raise MachineError(f"receipt log: {(error.strerror or 'failed').lower()}") from error
        self.tree.append(leaf)
        if place == (1 << self._height) - 1:
            self._forget()
        return index

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.id = self._identity(directory / "id")
        roots = self._records(_ROOTS, last=True)
        for root in roots:
            self.tree.graft(root, self._height)
        self._forgotten = len(roots)
        numbers = sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())
        for number in numbers:
            if number < self._forgotten:
                (directory / str(number)).unlink()  # the root was written, and then came the kill
        numbers = [number for number in numbers if number >= self._forgotten]
        if numbers != [*range(self._forgotten, self._forgotten + len(numbers))]:
            raise MachineError("receipt log: a segment is missing")
        for number in numbers:
            leaves = self._records(str(number), last=number == numbers[-1])
            if number != numbers[-1] and len(leaves) != 1 << self._height:
                raise MachineError(f"receipt log: segment {number} is not whole, and is not the last")
            for leaf in leaves:
                self.tree.append(leaf)
        if self.tree.size & (1 << self._height) - 1:
            self._begin(numbers[-1])
        self._forget()

    def _identity(self, path: Path) -> bytes:
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            found = b""
        if len(found) == ID:
            return found
        if any(other != path for other in path.parent.iterdir()):
            raise MachineError("receipt log: it has lost its id")
        path.write_bytes(self.id)  # before the first leaf: what a kill left of it is written over
        return self.id

    def _records(self, name: str, *, last: bool) -> list[bytes]:
        """What the file holds. In the `last` one the end is cut where a write was."""
        assert self._directory is not None
        path = self._directory / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        found = list[bytes]()
        for place, at in enumerate(range(0, len(data), RECORD)):
            record = data[at : at + RECORD]
            if len(record) < RECORD or record[SIZE:] != self._check(record[:SIZE], name, place):
                if not last or at + RECORD < len(data):
                    raise MachineError(f"receipt log: record {place} of {name} is not what was written")
                os.truncate(path, at)
                break
            found.append(record[:SIZE])
        return found

    def _check(self, content: bytes, name: str, place: int) -> bytes:
        said = self.id + name.encode() + b"\0" + place.to_bytes(8, "big") + content
        return blake2b(said, key=self._key, digest_size=_CHECK).digest()

    def _begin(self, number: int) -> None:
        assert self._directory is not None
        self.close()
        self._file = os.open(self._directory / str(number), _APPEND, 0o600)

    def _write(self, file: int | None, content: bytes, name: str, place: int) -> None:
        assert file is not None
        done = os.write(file, content + self._check(content, name, place))
        if done != RECORD:
            os.ftruncate(file, place * RECORD)
            raise MachineError("receipt log: no room for another record")

    def _forget(self) -> None:
        """Give up whole segments until no more than what is to be kept is there.

        What fails is tried again at the next segment's end: the log holds everything, only more than it has to.
        """
        try:
            while (self.tree.size >> self._height) - self._forgotten >= self._segments:
                number, self._forgotten = self._forgotten, self._noted(self._forgotten)
                self.tree.forget(self._forgotten << self._height, self._height)
                if self._directory is not None:
                    self._left.append(self._directory / str(number))
            while self._left:
                self._left[-1].unlink(missing_ok=True)
                self._left.pop()
        except (OSError, MachineError) as error:
            _log.warning("receipt log: old segments stay for now: %s", error)

    def _noted(self, number: int) -> int:
        """How many segments are forgotten once the root of this one is written."""
        if self._directory is not None:
            file = os.open(self._directory / _ROOTS, _APPEND, 0o600)
            try:
                os.ftruncate(file, number * RECORD)  # where a write was cut short
                self._write(file, self.tree.subtree(self._height, number), _ROOTS, number)
            finally:
                os.close(file)
        return number + 1
