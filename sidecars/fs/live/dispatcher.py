"""From the kernel's requests about nodes to an operations class that speaks of paths, and back to replies.

One dispatcher serves all threads. It keeps the inode table, and no request that names something runs while a
directory is renamed or removed.
"""

import errno
import os
from collections.abc import Callable
from threading import local
from typing import Final, TypeAlias

from sidecars.fs.live.changes import apply, drop_privilege
from sidecars.fs.live.gate import Gate
from sidecars.fs.live.listings import Listings
from sidecars.fs.live.nodes import Node, Nodes
from sidecars.fs.live.operations import Attributes, Operations, refuse
from sidecars.fs.protocol.frames import Opcode, OpenFlag, pack_attr, pack_entry, pack_open, pack_seek
from sidecars.fs.protocol.writing import (
    MAX_TRANSFER,
    OPEN_KILL_SUIDGID,
    WRITE_KILL_SUIDGID,
    Call,
    Valid,
    pack_attributes,
    pack_no_entry,
    pack_size,
    pack_statfs,
    pack_write,
)

Answer: TypeAlias = bytes | memoryview | None  # None: the kernel wants no reply
EXCLUSIVE_SECONDS: Final = (
    60  # that the kernel may trust what it was told; it also sees every change we are asked for
)


class Dispatcher:
    """Answers requests. `shared`: others change the store too, so the kernel may trust nothing for long."""

    def __init__(self, operations: Operations, *, shared: bool = False) -> None:
        self._operations: Final = operations
        self._nodes: Final = Nodes()
        self._gate: Final = Gate()
        self._caller = local()
        operations.caller = self._called_by
        self._seconds: Final = 0 if shared else EXCLUSIVE_SECONDS
        self._listings: Final = Listings(operations, self._nodes, self._seconds)
        self._no_entry: Final = pack_no_entry(self._seconds)
        self._open_file: Final = OpenFlag(0) if shared else OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH
        self._open_directory: Final = OpenFlag(0) if shared else OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR
        self._by_path: Final[dict[int, Callable[[Call], Answer]]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.LINK: self._link,
            Opcode.OPEN: self._open,
            Opcode.CREATE: self._create,
            Opcode.STATFS: self._statfs,
            Opcode.SETXATTR: self._setxattr,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
        }
        self._alone: Final[dict[int, Callable[[Call], Answer]]] = {
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename,
        }
        self._by_handle: Final[dict[int, Callable[[Call], Answer]]] = {
            Opcode.WRITE: self._write,
            Opcode.RELEASE: self._release,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FLUSH: self._flush,
            Opcode.FSYNC: self._fsync,  # both may take long: a rename would wait, and everybody behind it
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.LSEEK: self._lseek,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget_many,
            Opcode.INTERRUPT: lambda _: None,
            Opcode.DESTROY: self._destroy,
        }

    def answer(self, call: Call, room: memoryview) -> Answer:
        """The payload of the reply. `room`, MAX_TRANSFER bytes of this thread, is where a READ is put.

        An OSError is the answer; ProtocolError when a frame is not what fuse.h says; other errors of ours mean EIO.
        """
        opcode = call.opcode
        if opcode == Opcode.READ:
            return self._read(call, room)
        if (by_handle := self._by_handle.get(opcode)) is not None:
            return by_handle(call)
        if (by_path := self._by_path.get(opcode)) is not None:
            with self._gate:
                return by_path(call)
        if (alone := self._alone.get(opcode)) is None:
            refuse(errno.ENOSYS)  # the kernel falls back to what it can do itself, and mostly asks no more
        with self._gate.alone:
            return alone(call)

    def _called_by(self) -> tuple[int, int]:
        caller: tuple[int, int] = self._caller.owner
        return caller

    # Names

    def _lookup(self, call: Call) -> Answer:
        directory, name = self._nodes.node(call.node), os.fsdecode(call.name_at())
        try:
            attrs = self._operations.getattr(self._nodes.below(directory, name))
        except FileNotFoundError:
            if not self._seconds:
                raise
            return self._no_entry
        return self._entry(directory, name, attrs)

    def _entry(self, directory: Node, name: str, attrs: Attributes) -> bytes:
        node = self._nodes.found(directory, name, attrs)
        return pack_entry(node.id, pack_attributes(attrs), valid=self._seconds)

    def _made(self, call: Call, name: bytes, make: Callable[[str], object]) -> bytes:
        directory, text = self._nodes.node(call.node), os.fsdecode(name)
        path = self._nodes.below(directory, text)
        self._caller.owner = call.uid, call.gid
        make(path)
        return self._entry(directory, text, self._operations.getattr(path))

    def _symlink(self, call: Call) -> Answer:
        name, target = call.names()
        return self._made(call, name, lambda path: self._operations.symlink(path, os.fsdecode(target)))

    def _mknod(self, call: Call) -> Answer:
        mode, rdev, name = call.mknod()
        return self._made(call, name, lambda path: self._operations.mknod(path, mode, rdev))

    def _mkdir(self, call: Call) -> Answer:
        mode, name = call.mkdir()
        return self._made(call, name, lambda path: self._operations.mkdir(path, mode))

    def _link(self, call: Call) -> Answer:
        number, name = call.link()
        source = self._path(self._nodes.node(number))
        return self._made(call, name, lambda path: self._operations.link(path, source))

    def _create(self, call: Call) -> Answer:
        flags, mode, name = call.create()
        directory, text = self._nodes.node(call.node), os.fsdecode(name)
        path = self._nodes.below(directory, text)
        self._caller.owner = call.uid, call.gid
        fh, attrs = self._operations.created(path, mode, flags)
        node = self._nodes.found(directory, text, attrs)
        self._nodes.opened(node, fh)
        return pack_entry(node.id, pack_attributes(attrs), valid=self._seconds) + pack_open(
            self._open_file, handle=fh
        )

    def _unlink(self, call: Call) -> Answer:
        directory, name = self._nodes.node(call.node), os.fsdecode(call.name_at())
        self._operations.unlink(self._nodes.below(directory, name))
        self._nodes.removed(directory, name)
        return b""

    def _rmdir(self, call: Call) -> Answer:
        directory, name = self._nodes.node(call.node), os.fsdecode(call.name_at())
        self._operations.rmdir(self._nodes.below(directory, name))
        self._nodes.removed(directory, name)
        return b""

    def _rename(self, call: Call) -> Answer:
        number, flags, old, new = call.rename()
        directory, target = self._nodes.node(call.node), self._nodes.node(number)
        name, new_name = os.fsdecode(old), os.fsdecode(new)
        old_path, new_path = self._nodes.below(directory, name), self._nodes.below(target, new_name)
        if flags:
            self._operations.rename(old_path, new_path, flags)
        else:
            self._operations.rename(old_path, new_path)
        exchanged = bool(flags & 2)  # RENAME_EXCHANGE
        first, second = directory.children.get(name), target.children.get(new_name)
        if exchanged or first is None or first is not second:  # two names of one file: rename(2) leaves both
            self._nodes.moved(directory, name, target, new_name, exchanged=exchanged)
        return b""

    def _forget(self, call: Call) -> Answer:
        self._nodes.forget([(call.node, call.forget())])
        return None

    def _forget_many(self, call: Call) -> Answer:
        self._nodes.forget(call.forgotten())
        return None

    # Attributes

    def _path(self, node: Node) -> str:
        """Where it is; for an open file without a name "", which only goes with its handle."""
        if (path := self._nodes.path(node)) is not None:
            return path
        if node.handle is None:
            refuse(errno.ESTALE)
        return ""

    def _getattr(self, call: Call) -> Answer:
        node = self._nodes.node(call.node)
        return self._attr(node, node.handle)

    def _attr(self, node: Node, fh: int | None) -> bytes:
        attrs = self._operations.getattr(self._path(node), fh)
        return pack_attr(pack_attributes(attrs), valid=self._seconds)

    def _setattr(self, call: Call) -> Answer:
        node, changes = self._nodes.node(call.node), call.setattr()
        fh = changes.fh if Valid.FH in changes.valid else node.handle
        apply(changes, self._operations, self._path(node), fh)
        return self._attr(node, fh)

    def _readlink(self, call: Call) -> Answer:
        return os.fsencode(self._operations.readlink(self._path(self._nodes.node(call.node))))

    def _statfs(self, call: Call) -> Answer:
        path = self._nodes.path(self._nodes.node(call.node))
        return pack_statfs(self._operations.statfs("/" if path is None else path))

    def _setxattr(self, call: Call) -> Answer:
        node, (name, value, flags) = self._nodes.node(call.node), call.setxattr()
        self._operations.setxattr(self._path(node), os.fsdecode(name), value, flags, **_by_handle(node))
        return b""

    def _getxattr(self, call: Call) -> Answer:
        node, (room, name) = self._nodes.node(call.node), call.getxattr()
        return _fitted(
            self._operations.getxattr(self._path(node), os.fsdecode(name), **_by_handle(node)), room
        )

    def _listxattr(self, call: Call) -> Answer:
        node, room = self._nodes.node(call.node), call.listxattr()
        names = self._operations.listxattr(self._path(node), **_by_handle(node))
        return _fitted(b"".join(os.fsencode(name) + b"\0" for name in names), room)

    def _removexattr(self, call: Call) -> Answer:
        node = self._nodes.node(call.node)
        self._operations.removexattr(self._path(node), os.fsdecode(call.name_at()), **_by_handle(node))
        return b""

    # Files

    def _open(self, call: Call) -> Answer:
        node, (flags, more) = self._nodes.node(call.node), call.open()
        path = self._path(node)
        fh = self._operations.open(path, flags)
        if more & OPEN_KILL_SUIDGID:
            drop_privilege(self._operations, path, fh)
        self._nodes.opened(node, fh)
        return pack_open(self._open_file, handle=fh)

    def _read(self, call: Call, room: memoryview) -> Answer:
        fh, offset, size, _ = call.transfer()
        if size > MAX_TRANSFER:
            refuse(errno.EINVAL)
        return room[: self._operations.read_into("", room[:size], offset, fh)]

    def _write(self, call: Call) -> Answer:
        fh, offset, size, flags = call.transfer()
        written = self._operations.write("", call.written(size), offset, fh)
        if flags & WRITE_KILL_SUIDGID:
            drop_privilege(self._operations, "", fh)
        return pack_write(written)

    def _release(self, call: Call) -> Answer:
        fh = call.fh()
        self._nodes.closed(call.node, fh)
        self._operations.release("", fh)
        return b""

    def _flush(self, call: Call) -> Answer:
        self._operations.flush("", call.fh())
        return b""

    def _fsync(self, call: Call) -> Answer:
        node, (fh, data) = self._nodes.node(call.node), call.fsync()
        self._operations.fsync(self._path(node), int(data), fh)
        return b""

    def _fallocate(self, call: Call) -> Answer:
        fh, offset, length, mode = call.fallocate()
        self._operations.fallocate("", mode, offset, length, fh)
        return b""

    def _lseek(self, call: Call) -> Answer:
        fh, offset, whence = call.lseek()
        return pack_seek(self._operations.lseek("", offset, whence, fh))

    # Directories

    def _opendir(self, call: Call) -> Answer:
        number = self._listings.open(self._path(self._nodes.node(call.node)))
        return pack_open(self._open_directory, handle=number)

    def _releasedir(self, call: Call) -> Answer:
        self._listings.close(call.fh())
        return b""

    def _fsyncdir(self, call: Call) -> Answer:
        number, data = call.fsync()
        node, fh = self._nodes.node(call.node), self._listings.handle(number)
        try:
            self._operations.fsyncdir(self._path(node), int(data), fh)
        except FileNotFoundError:  # it was renamed meanwhile
            with self._gate:
                self._operations.fsyncdir(self._path(node), int(data), fh)
        return b""

    def _readdir(self, call: Call) -> Answer:
        return self._listings.read(call.transfer(), self._path(self._nodes.node(call.node)))

    def _readdirplus(self, call: Call) -> Answer:
        directory = self._nodes.node(call.node)
        return self._listings.read_plus(call.transfer(), directory, self._path(directory))

    def _destroy(self, _: Call) -> Answer:
        self._operations.destroy("/")
        return b""


def _by_handle(node: Node) -> dict[str, int]:
    return {} if node.handle is None else {"fh": node.handle}


def _fitted(value: bytes, room: int) -> bytes:
    """A value, or its length when nothing else was asked for."""
    if not room:
        return pack_size(len(value))
    if len(value) > room:
        refuse(errno.ERANGE)
    return value
