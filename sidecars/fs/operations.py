"""What each request is answered. Pure: the shell reads chunks and writes frames."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, EIO, EISDIR, ENOENT, ENOSYS, ENOTDIR, EROFS
from typing import Final, TypeAlias

from sidecars.fs.protocol.frames import (
    KERNEL_VERSION,
    OLDEST_MINOR,
    WANTED,
    InitFlag,
    Opcode,
    OpenFlag,
    Request,
    pack_init,
    pack_no_entry,
    pack_open,
)
from sidecars.fs.tree import Node, Tree
from strongroom.errors import ProtocolError
from strongroom.sealed.manifest import Directory, InlineFile, SealedFile, Symlink


@dataclass(frozen=True, slots=True)
class Refusal:
    errno: int


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [offset, offset + size) of an object, all of them inside the file."""

    file: SealedFile
    offset: int
    size: int


class Silence:
    """The kernel wants no reply."""


Answer: TypeAlias = bytes | Refusal | Range | Silence

SILENCE: Final = Silence()
_NO_ENTRY: Final = pack_no_entry()
_OPEN_FILE: Final = pack_open(OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)
_OPEN_DIRECTORY: Final = pack_open(OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR)
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
    """Answers requests about one tree. Holds no state of its own, so threads share it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._about_nodes: dict[int, Callable[[Request, Node], Answer]] = {
            Opcode.LOOKUP: _lookup(tree),
            Opcode.GETATTR: lambda _, node: node.attr,
            Opcode.READLINK: _read_link,
            Opcode.OPEN: _open,
            Opcode.READ: _read,
            Opcode.OPENDIR: _open_directory,
            Opcode.READDIR: lambda request, node: _records(request, node.listing),
            Opcode.READDIRPLUS: lambda request, node: _records(request, node.listing_plus),
        }

    def answer(self, request: Request) -> Answer:
        """Never raises for what the kernel may ask; ProtocolError when a frame is not what fuse.h says."""
        if request.opcode in _SILENT:
            return SILENCE
        if request.opcode in _EMPTY:
            return b""
        if request.opcode in _WRITING:
            return Refusal(EROFS)
        if request.opcode == Opcode.STATFS:
            return self._tree.statfs
        if (about_node := self._about_nodes.get(request.opcode)) is None:
            return Refusal(ENOSYS)  # the kernel falls back to what it can do alone, and mostly asks no more
        if (node := self._tree.node(request.node)) is None:
            return Refusal(ENOENT)
        return about_node(request, node)


def greet(request: Request) -> bytes:
    """The reply to INIT, or ProtocolError for a kernel we cannot work with."""
    if request.opcode != Opcode.INIT:
        raise ProtocolError(f"fuse: first request is {request.opcode}, want {Opcode.INIT}")
    major, minor, max_readahead, flags = request.init()
    if major != KERNEL_VERSION or minor < OLDEST_MINOR:
        raise ProtocolError(
            f"fuse: kernel speaks {major}.{minor}, want {KERNEL_VERSION}.{OLDEST_MINOR} or newer"
        )
    return pack_init(max_readahead=max_readahead, flags=InitFlag(flags) & WANTED)


def _lookup(tree: Tree) -> Callable[[Request, Node], Answer]:
    def look_up(request: Request, directory: Node) -> Answer:
        if not isinstance(directory.entry, Directory):
            return Refusal(ENOTDIR)
        if (child := directory.children.get(request.name())) is None:
            return _NO_ENTRY
        node = tree.node(child)
        return Refusal(EIO) if node is None else node.found

    return look_up


def _read_link(_: Request, node: Node) -> Answer:
    return node.entry.target.encode() if isinstance(node.entry, Symlink) else Refusal(EINVAL)


def _open(request: Request, node: Node) -> Answer:
    flags = request.open_flags()
    if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
        return Refusal(EROFS)
    return Refusal(EISDIR) if isinstance(node.entry, Directory) else _OPEN_FILE


def _read(request: Request, node: Node) -> Answer:
    offset, size = request.read_range()
    match node.entry:
        case InlineFile(content=content):
            return content[offset : offset + size]
        case SealedFile() as file:
            size = min(size, file.size - offset)
            return Range(file, offset, size) if size > 0 else b""
        case _:
            return Refusal(EISDIR)


def _open_directory(_: Request, node: Node) -> Answer:
    return _OPEN_DIRECTORY if isinstance(node.entry, Directory) else Refusal(ENOTDIR)


def _records(request: Request, records: tuple[bytes, ...]) -> Answer:
    """As many whole records from `offset` on as fit: an offset is a position in the listing, stable for ever."""
    offset, room = request.read_range()
    taken: list[bytes] = []
    for index in range(offset, len(records)):
        room -= len(records[index])
        if room < 0:
            break
        taken.append(records[index])
    return b"".join(taken)
