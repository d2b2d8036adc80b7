"""What is being written at this moment, kept where a daemon that is killed leaves it behind.

The kernel may stop a pwrite(2) between two pages when its process is killed, and a sealed block always lies across
two: half a block opens to nothing. So the bytes to be written are sealed into a file in memory that outlives the
daemon, together with where they go; the next daemon writes them again. That costs no copy, and no time.

    slot      4096 bytes of record, then the sealed bytes
    record    u64 armed || u64 inode || u64 offset || u64 length || u8 cut || 18 bytes, the header of the object

Ciphertext only. The file goes with the machine's memory: after a power cut a block may be torn, as with any file
system that does not journal contents; fsync(2) is what protects from that.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from struct import Struct
from typing import Final, Self

from sidecars.fs.protocol.writing import MAX_TRANSFER
from strongroom.errors import MachineError
from strongroom.sealed.gocryptfs.content import BLOCK, HEADER_SIZE

_BLOCKS: Final = MAX_TRANSFER // BLOCK + 1  # of an unaligned write
ROOM: Final = -(-(HEADER_SIZE + _BLOCKS * (BLOCK + 40)) // 4096) * 4096  # bytes of sealed data in a slot
PLAIN_ROOM: Final = _BLOCKS * BLOCK
_RECORD_SIZE: Final = 4096
_SLOT: Final = _RECORD_SIZE + ROOM
_RECORD: Final = Struct("<QQQB18s")
_ARMED: Final = Struct("<Q")
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MARK: Final = 0x73726D2D6C697665


class Workspace:
    """Buffers for one request at a time, made once. What is to be written is sealed into `room`."""

    def __init__(self, slot: memoryview) -> None:
        self._record: Final = slot[:_RECORD_SIZE]
        self.room: Final = slot[_RECORD_SIZE:]
        self.sealed: Final = memoryview(bytearray(ROOM))  # what was read
        self.plain: Final = memoryview(bytearray(PLAIN_ROOM))

    def intend(self, *, inode: int, header: bytes, offset: int, length: int, cut: bool) -> None:
        """From now until settle(), `length` bytes of `room` go to `offset`; with `cut` the object is to end there."""
        _RECORD.pack_into(self._record, _ARMED.size, inode, offset, length, cut, header)
        _ARMED.pack_into(self._record, 0, _MARK)  # last: a record counts once it is complete

    def left(self) -> tuple[int, int, int, bool, bytes] | None:
        """Inode, offset, length, cut and header of a write that was not finished."""
        if _ARMED.unpack_from(self._record)[0] != _MARK:
            return None
        inode, offset, length, cut, header = _RECORD.unpack_from(self._record, _ARMED.size)
        return (inode, offset, length, bool(cut), header) if length <= ROOM else None

    def settle(self) -> None:
        _ARMED.pack_into(self._record, 0, 0)


class Intents:
    """As many workspaces as requests may be worked on at once. One daemon holds the file at a time."""

    def __init__(self, fd: int, workspaces: list[Workspace]) -> None:
        self._fd = fd
        self._workspaces: Final = workspaces
        self._free: Final = SimpleQueue[Workspace]()
        self.take: Final = self._free.get
        self.give: Final = self._free.put
        for workspace in workspaces:
            self.give(workspace)

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, count: int) -> Iterator[Self]:
        """The file at `path`, made when it is not there. MachineError when another daemon holds it."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MachineError(f"{path}: {(error.strerror or 'failed').lower()}") from error
        try:
            _hold(fd, path)
            try:
                size = max(count * _SLOT, os.fstat(fd).st_size // _SLOT * _SLOT)
                os.posix_fallocate(fd, 0, size)  # a store to memory that is not there would kill us
            except OSError as error:
                raise MachineError(f"{path}: no room for {count * _SLOT} bytes") from error
            shared = mmap.mmap(fd, size)
            view = memoryview(shared)
            yield cls(fd, [Workspace(view[at : at + _SLOT]) for at in range(0, size, _SLOT)])
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # the mapping, which has a descriptor too, goes with its last user
            os.close(fd)

    def complete(self, top: int) -> tuple[int, int]:
        """Write again what a killed daemon had begun to write below `top`: how many writes, and how many could not be.

        Before anybody else uses the volume. A write to an object that is gone, or was replaced, is no longer wanted.
        """
        left = {work: record for work in self._workspaces if (record := work.left()) is not None}
        lost = 0
        if left:
            wanted = {record[0] for record in left.values()}
            with _objects(top, wanted) as objects:
                for work, record in left.items():
                    lost += not _finish(objects.get(record[0]), work.room, record)
                    work.settle()
        return len(left) - lost, lost


def _hold(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MachineError(f"{path}: held by another daemon, want one writer of a volume") from None


def _finish(fd: int | None, room: memoryview, record: tuple[int, int, int, bool, bytes]) -> bool:
    _, offset, length, cut, header = record
    if fd is None:
        return False
    there = os.pread(fd, HEADER_SIZE, 0)
    if there != header[: len(there)] or (offset and len(there) < HEADER_SIZE):
        return False
    done = 0
    with suppress(OSError):
        while done < length:
            done += os.pwrite(fd, room[done:length], offset + done)
        if cut:
            os.ftruncate(fd, offset + length)
        return True
    return False


@contextmanager
def _objects(top: int, wanted: set[int]) -> Iterator[dict[int, int]]:
    """Descriptors of the regular files with these inode numbers, wherever they are below `top`."""
    found: dict[int, int] = {}
    way = [_Look(top, ".")]
    try:
        while way and len(found) < len(wanted):
            if (entry := next(way[-1].entries, None)) is None:
                way.pop().close()
            elif entry.is_dir(follow_symlinks=False):
                with suppress(OSError):  # gone meanwhile, or a link by now
                    way.append(_Look(way[-1].fd, entry.name))
            elif entry.inode() in wanted and entry.is_file(follow_symlinks=False):
                fd = os.open(entry.name, os.O_RDWR | _SAFE, dir_fd=way[-1].fd)
                if os.fstat(fd).st_ino == entry.inode() and entry.inode() not in found:
                    found[entry.inode()] = fd
                else:
                    os.close(fd)
        yield found
    finally:
        for look in way:
            look.close()
        for fd in found.values():
            os.close(fd)


class _Look:
    """A directory on the way, and where in it we are: as many are open as it lies deep."""

    def __init__(self, above: int, name: str) -> None:
        self.fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _SAFE, dir_fd=above)
        self.entries = os.scandir(self.fd)

    def close(self) -> None:
        self.entries.close()
        os.close(self.fd)
