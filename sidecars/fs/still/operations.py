"""What each request is answered. Pure: the shell reads the store and writes frames."""

import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from errno import EINVAL, EISDIR, ENOENT, ENOSYS, ENOTDIR, ENXIO, EROFS
from typing import Final, NamedTuple, TypeAlias

from sidecars.fs.protocol.frames import Opcode, OpenFlag, Request, pack_no_entry, pack_open, pack_seek
from sidecars.fs.still.tree import Tree
from strongroom.host.stored import Item


@dataclass(frozen=True, slots=True)
class Refusal:
    errno: int


class Range(NamedTuple):  # made for every read: a tuple is made fastest
    """Bytes [offset, offset + size) of what a Reader calls `key`, all of them inside the file."""

    key: int
    offset: int
    size: int


class Silence:
    """The kernel wants no reply."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The master answers: it alone knows what is in memory, and may tell the kernel."""

    opcode: int
    subject: int  # a node; of INTERRUPT the request that is given up


Answer: TypeAlias = bytes | memoryview | Refusal | Range | Silence | HandedOver

SILENCE: Final = Silence()
OPENED: Final = pack_open(OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)
_NO_ENTRY: Final = pack_no_entry()
# Not CACHE_DIR: a listing that outlives the names it brought has each of them looked up one by one.
_OPENED_DIRECTORY: Final = pack_open(OpenFlag.KEEP_CACHE)
_SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET})
_EMPTY: Final = frozenset({Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.DESTROY})
_WRITING: Final = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.RENAME2,
        Opcode.COPY_FILE_RANGE,
        Opcode.TMPFILE,
    }
)


class Operations:
    """Answers requests about one tree. Holds no state of its own, so every process has the same.

    `ahead` are the nodes of files that are read into memory ahead: their OPEN and RELEASE are the master's.
    """

    def __init__(self, tree: Tree, ahead: Collection[int] = ()) -> None:
        self._tree = tree
        self._ahead = frozenset(ahead)
        self._about_nodes: dict[int, Callable[[Request, Item], Answer]] = {
            Opcode.LOOKUP: self._look_up,
            Opcode.GETATTR: lambda request, _: tree.attr(request.node),
            Opcode.STATX: lambda request, _: tree.statx(request.node),
            Opcode.READLINK: lambda _, item: item.target or Refusal(EINVAL),
            Opcode.OPEN: self._open,
            Opcode.READ: lambda request, _: self.read(
                request.node, *request.read_range()
            ),  # of an odd length
            Opcode.OPENDIR: self._open_directory,
            Opcode.READDIR: self._list,
            Opcode.READDIRPLUS: self._list,
            Opcode.LSEEK: _seek,
        }

    def answer(self, request: Request) -> Answer:
        """Never raises for what the kernel may ask; ProtocolError when a frame is not what fuse.h says."""
        opcode = request.opcode
        if (about_node := self._about_nodes.get(opcode)) is not None:
            item = self._tree.item(request.node)
            return Refusal(ENOENT) if item is None else about_node(request, item)
        if opcode in _SILENT:
            return SILENCE
        if opcode == Opcode.RELEASE and request.node in self._ahead:
            return HandedOver(opcode, request.node)
        if opcode in _EMPTY:
            return b""
        if opcode in _WRITING:
            return Refusal(EROFS)
        if opcode == Opcode.STATFS:
            return self._tree.statfs
        # Only who waits for a file to be in memory waits for long.
        if opcode == Opcode.INTERRUPT and self._ahead:
            return HandedOver(opcode, request.interrupted())
        # The kernel asks this once, then knows. ACCESS: permission bits decide alone. GETXATTR and LISTXATTR: there
        # are none, EOPNOTSUPP for whoever looks. FLUSH: nothing is left to write. And whatever is newer than we are.
        return Refusal(ENOSYS)

    def read(self, node: int, offset: int, size: int) -> Answer:
        """READ, the only request whose speed matters."""
        if (item := self._tree.item(node)) is None:
            return Refusal(ENOENT)
        if item.content is not None:
            return item.content[offset : offset + size]
        if item.key is None:
            return b"" if stat.S_ISREG(item.mode) and item.size == 0 else Refusal(EISDIR)
        if (size := min(size, item.size - offset)) <= 0:
            return b""
        return Range(item.key, offset, size)

    def _look_up(self, request: Request, _: Item) -> Answer:
        if (directory := self._tree.directory(request.node)) is None:
            return Refusal(ENOTDIR)
        child = directory.children.get(request.name())
        return _NO_ENTRY if child is None else self._tree.found(child)

    def _open(self, request: Request, _: Item) -> Answer:
        flags = request.open_flags()
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            return Refusal(EROFS)
        if self._tree.directory(request.node):
            return Refusal(EISDIR)
        return HandedOver(request.opcode, request.node) if request.node in self._ahead else OPENED

    def _open_directory(self, request: Request, _: Item) -> Answer:
        return _OPENED_DIRECTORY if self._tree.directory(request.node) else Refusal(ENOTDIR)

    def _list(self, request: Request, _: Item) -> Answer:
        """An offset is a position in the listing, stable for ever."""
        if (directory := self._tree.directory(request.node)) is None:
            return Refusal(ENOTDIR)
        position, room = request.read_range()
        if request.opcode == Opcode.READDIRPLUS:
            return directory.listing_plus(position, room)
        return directory.listing(position, room)


def _seek(request: Request, item: Item) -> Answer:
    """No file has holes: all of it is data, and what comes behind its last byte is the one hole."""
    offset, whence = request.seek()
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        return Refusal(EINVAL)
    if offset >= item.size:
        return Refusal(ENXIO)
    return pack_seek(offset if whence == os.SEEK_DATA else item.size)
