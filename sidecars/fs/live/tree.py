"""The names of a gocryptfs volume and what hangs on them: the half of the operations that opens no file.

Everything is done relative to a descriptor of the directory and follows no link of the store.
"""
# ruff: noqa: ARG002 - fusepy gives every method a path, needed or not

import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from sidecars.fs.live.directories import Directories, Directory
from sidecars.fs.live.files import Files
from sidecars.fs.live.operations import Attributes, Listed, Operations, refuse
from strongroom.errors import FormatError, StrongroomError
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.names import StoredName

_NOREPLACE: Final = 1  # of renameat2(2)
_EXCHANGE: Final = 2
_USER: Final = "user."
_NOT_EMPTY: Final = {errno.ENOTEMPTY, errno.EEXIST}
_libc: Final = ctypes.CDLL(None, use_errno=True)


class VolumeTree(Operations):
    """Made, renamed and removed names, attributes, listings. Open files come from `files`, and some calls name them."""

    def __init__(self, directories: Directories, files: Files, ciphers: Ciphers) -> None:
        self._directories: Final = directories
        self._files: Final = files
        self._ciphers: Final = ciphers

    # Names

    def getattr(self, path: str, fh: int | None = None) -> Attributes:
        if fh is not None:
            return self._attributes(os.fstat(self._files.content(fh).fd), None, b"")
        if path == "/":
            return self._attributes(os.fstat(self._directories.top.fd), None, b"")
        directory, stored = self._directories.place(path)
        status = os.stat(stored.on_disk, dir_fd=directory.fd, follow_symlinks=False)
        return self._attributes(status, directory, stored.on_disk)

    def _attributes(self, status: os.stat_result, directory: Directory | None, on_disk: bytes) -> Attributes:
        mode, size = status.st_mode, status.st_size
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFREG:
            size = size and self._plain_size(size)
        elif kind == stat.S_IFLNK and directory is not None and not self._ciphers.settings.plaintext_names:
            size = len(self._target(directory, on_disk))
        return {
            "st_mode": mode,
            "st_ino": status.st_ino,
            "st_dev": status.st_dev,
            "st_nlink": status.st_nlink,
            "st_uid": status.st_uid,
            "st_gid": status.st_gid,
            "st_rdev": status.st_rdev,
            "st_size": size,
            "st_blksize": BLOCK,
            "st_blocks": status.st_blocks,
            "st_atime": status.st_atime_ns,
            "st_mtime": status.st_mtime_ns,
            "st_ctime": status.st_ctime_ns,
        }

    def _plain_size(self, sealed_size: int) -> int:
        content = self._ciphers.content
        try:
            return content.plain_size(sealed_size)
        except FormatError:  # its last block is cut: it can still be listed, and read up to there
            return max(0, sealed_size - content.header_size) // content.sealed_block * BLOCK

    def readlink(self, path: str) -> str:
        directory, stored = self._directories.place(path)
        return os.fsdecode(self._target(directory, stored.on_disk))

    def _target(self, directory: Directory, on_disk: bytes) -> bytes:
        return self._ciphers.attributes.open_target(os.readlink(on_disk, dir_fd=directory.fd))

    def mknod(self, path: str, mode: int, dev: int) -> int:
        if stat.S_IFMT(mode) in (0, stat.S_IFREG):
            self.release(path, self.create(path, stat.S_IMODE(mode), os.O_EXCL))
            return 0
        with self._new(path) as (directory, stored):
            os.mknod(stored.on_disk, stat.S_IFMT(mode) | 0o600, dev, dir_fd=directory.fd)
            self._give(directory, stored.on_disk, stat.S_IMODE(mode))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        with self._new(path) as (directory, stored):
            os.mkdir(stored.on_disk, 0o700, dir_fd=directory.fd)
            try:
                made = self._directories.made(directory, stored)
            except OSError:
                os.rmdir(stored.on_disk, dir_fd=directory.fd)
                raise
            uid, gid = self._owner(os.fstat(made.fd))
            os.fchown(made.fd, uid, gid)
            os.fchmod(made.fd, stat.S_IMODE(mode) | os.fstat(made.fd).st_mode & stat.S_ISGID)
        self._directories.drop(path)
        return 0

    def symlink(self, target: str, source: str) -> int:
        nonce = os.urandom(self._ciphers.content.nonce_size)
        try:
            sealed = self._ciphers.attributes.seal_target(os.fsencode(source), nonce)
        except FormatError:
            refuse(errno.ENAMETOOLONG if source else errno.ENOENT)
        with self._new(target) as (directory, stored):
            os.symlink(sealed, stored.on_disk, dir_fd=directory.fd)
            status = os.stat(stored.on_disk, dir_fd=directory.fd, follow_symlinks=False)
            os.chown(stored.on_disk, *self._owner(status), dir_fd=directory.fd, follow_symlinks=False)
        return 0

    def link(self, target: str, source: str) -> int:
        there, old = self._directories.place(source)
        with self._new(target) as (directory, stored):
            os.link(
                old.on_disk,
                stored.on_disk,
                src_dir_fd=there.fd,
                dst_dir_fd=directory.fd,
                follow_symlinks=False,
            )
        return 0

    @contextmanager
    def _new(self, path: str) -> Iterator[tuple[Directory, StoredName]]:
        """Where a new name goes; what a long one needs is there before, and taken back when it fails."""
        directory, stored = self._directories.place(path)
        added = directory.add_long(stored) if stored.long else False
        try:
            yield directory, stored
        except BaseException:
            if added:
                directory.drop_long(stored)
            raise

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        """Whose a new file is; -1 for what it has. A directory with the set-group-ID bit has given its own group."""
        uid, gid = self.caller()
        return (
            -1 if uid == status.st_uid else uid,
            -1 if gid == status.st_gid or status.st_gid != os.getegid() else gid,
        )

    def _give(self, directory: Directory, on_disk: bytes, mode: int) -> None:
        fd = os.open(on_disk, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
        try:
            os.chown(f"/proc/self/fd/{fd}", *self._owner(os.fstat(fd)))
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def unlink(self, path: str) -> int:
        directory, stored = self._directories.place(path)
        os.unlink(stored.on_disk, dir_fd=directory.fd)
        directory.drop_long(stored)
        return 0

    def rmdir(self, path: str) -> int:
        above, stored = self._directories.place(path)
        with self._emptied(path):
            os.rmdir(stored.on_disk, dir_fd=above.fd)
        above.drop_long(stored)
        self._directories.drop(path)
        return 0

    @contextmanager
    def _emptied(self, path: str) -> Iterator[None]:
        """A directory without its IV, and so without anything, for as long as it takes to remove it."""
        directory = self._directories.find(path)
        if not directory.is_empty():
            refuse(errno.ENOTEMPTY)
        directory.drop_diriv()
        try:
            yield
        except BaseException:
            directory.add_diriv()
            raise

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        if flags & ~(_NOREPLACE | _EXCHANGE):
            refuse(errno.EINVAL)
        source, name = self._directories.place(old)
        with self._new(new) as (target, new_name):
            try:
                _rename(source.fd, name.on_disk, target.fd, new_name.on_disk, flags)
            except OSError as error:
                if flags or error.errno not in _NOT_EMPTY:
                    raise
                with self._emptied(new):  # the target is an empty directory, which rename(2) replaces
                    _rename(source.fd, name.on_disk, target.fd, new_name.on_disk, flags)
        if not flags & _EXCHANGE:
            source.drop_long(name)
        self._directories.drop(old)
        self._directories.drop(new)
        return 0

    # Attributes

    @contextmanager
    def _object(self, path: str, fh: int | None) -> Iterator[str | int]:
        """What stands for an object in calls that follow links, and for a link here all the same."""
        if fh is not None:
            yield self._files.content(fh).fd
            return
        if path == "/":
            yield self._directories.top.fd
            return
        directory, stored = self._directories.place(path)
        fd = os.open(stored.on_disk, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)

    def chmod(self, path: str, mode: int, fh: int | None = None) -> int:
        with self._object(path, fh) as there:
            os.chmod(there, stat.S_IMODE(mode))
        return 0

    def chown(self, path: str, uid: int, gid: int, fh: int | None = None) -> int:
        with self._object(path, fh) as there:
            os.chown(there, uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None, fh: int | None = None) -> int:
        if fh is None and path != "/":
            directory, stored = self._directories.place(path)
            if times is None:
                os.utime(stored.on_disk, dir_fd=directory.fd, follow_symlinks=False)
            else:
                os.utime(stored.on_disk, ns=times, dir_fd=directory.fd, follow_symlinks=False)
            return 0
        fd = self._directories.top.fd if fh is None else self._files.content(fh).fd
        if times is None:
            os.utime(fd)
        else:
            os.utime(fd, ns=times)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0, fh: int | None = None) -> bytes:
        on_disk = self._attribute(name)
        with self._object(path, fh) as there:
            return self._ciphers.attributes.open_value(os.getxattr(there, on_disk))

    def listxattr(self, path: str, fh: int | None = None) -> Iterable[str]:
        names: list[str] = []
        with self._object(path, fh) as there:
            for on_disk in os.listxattr(there):
                try:
                    name = os.fsdecode(self._ciphers.attributes.open_name(os.fsencode(on_disk)))
                except StrongroomError:
                    continue  # of another program, or of another volume
                if name.startswith(_USER):
                    names.append(name)
        return names

    def setxattr(
        self, path: str, name: str, value: bytes, options: int, position: int = 0, fh: int | None = None
    ) -> int:
        sealed = self._ciphers.attributes.seal_value(value, os.urandom(self._ciphers.content.nonce_size))
        with self._object(path, fh) as there:
            os.setxattr(there, self._attribute(name), sealed, options)
        return 0

    def removexattr(self, path: str, name: str, fh: int | None = None) -> int:
        with self._object(path, fh) as there:
            os.removexattr(there, self._attribute(name))
        return 0

    def _attribute(self, name: str) -> bytes:
        """What an attribute is called on disk. Those that would give rights are nobody's to set here."""
        if not name.startswith(_USER):
            refuse(errno.EOPNOTSUPP)
        return self._ciphers.attributes.seal_name(os.fsencode(name))

    def statfs(self, path: str) -> dict[str, int]:
        status = os.fstatvfs(self._directories.top.fd)
        names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "flag")
        return {f"f_{name}": getattr(status, f"f_{name}") for name in names} | {"f_namemax": 255}

    # Directories

    def opendir(self, path: str) -> int:
        self._directories.find(path)
        return 0

    def readdir(self, path: str, fh: int) -> Iterable[Listed]:
        """Names alone: whoever lists them asks for all attributes anyway."""
        return [".", "..", *self._directories.find(path).names()]

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        directory = self._directories.find(path)
        directory.settle()
        self._directories.settle(path)
        os.fsync(directory.fd)
        return 0


def _rename(source: int, old: bytes, target: int, new: bytes, flags: int) -> None:
    if not flags:
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
    elif _libc.renameat2(source, old, target, new, flags):
        refuse(ctypes.get_errno())
