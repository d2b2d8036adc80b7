"""What a file system does, one method for each thing asked: fusepy's names, arguments and errors.

Paths are str from "/", bytes that are no UTF-8 as surrogates. Attributes are a dict with the names of stat(2), times in
whole nanoseconds. A handle is what open(), create() or opendir() returned. An OSError is the answer of the call.
What fusepy does not have: read_into(), lseek(), rename() with flags, and a handle for the calls that change
attributes, because a file may be open under no name.
"""
# ruff: noqa: ARG002 - the defaults do not look at what they are asked

import errno
import os
from collections.abc import Callable, Iterable
from typing import ClassVar, NoReturn, TypeAlias

Attributes: TypeAlias = dict[str, int]
Listed: TypeAlias = str | tuple[str, Attributes, int]  # a name, perhaps with st_mode and st_ino, and 0


def refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


class Operations:
    """A file system without anything in it that refuses to change: the defaults of one that does more.

    `caller` gives user and group of whoever makes the call that is answered; front ends set it.
    """

    use_ns: ClassVar[bool] = True
    caller: Callable[[], tuple[int, int]] = staticmethod(lambda: (os.geteuid(), os.getegid()))

    def init(self, path: str) -> None:
        """Called once the file system is mounted."""

    def destroy(self, path: str) -> None:
        """Called once it is unmounted."""

    # Names

    def getattr(self, path: str, fh: int | None = None) -> Attributes:
        refuse(errno.ENOENT)

    def readlink(self, path: str) -> str:
        refuse(errno.EINVAL)

    def mknod(self, path: str, mode: int, dev: int) -> int:
        refuse(errno.EROFS)

    def mkdir(self, path: str, mode: int) -> int:
        refuse(errno.EROFS)

    def symlink(self, target: str, source: str) -> int:
        """Make `target`, a link that says `source`."""
        refuse(errno.EROFS)

    def link(self, target: str, source: str) -> int:
        """Make `target`, another name of `source`."""
        refuse(errno.EROFS)

    def unlink(self, path: str) -> int:
        refuse(errno.EROFS)

    def rmdir(self, path: str) -> int:
        refuse(errno.EROFS)

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        """`flags` are those of renameat2(2)."""
        refuse(errno.EROFS)

    # Attributes

    def chmod(self, path: str, mode: int, fh: int | None = None) -> int:
        refuse(errno.EROFS)

    def chown(self, path: str, uid: int, gid: int, fh: int | None = None) -> int:
        """-1 leaves an owner as it is."""
        refuse(errno.EROFS)

    def utimens(self, path: str, times: tuple[int, int] | None = None, fh: int | None = None) -> int:
        """Access and modification time in nanoseconds; None for now."""
        refuse(errno.EROFS)

    def getxattr(self, path: str, name: str, position: int = 0, fh: int | None = None) -> bytes:
        refuse(errno.ENODATA)

    def listxattr(self, path: str, fh: int | None = None) -> Iterable[str]:
        return []

    def setxattr(
        self, path: str, name: str, value: bytes, options: int, position: int = 0, fh: int | None = None
    ) -> int:
        refuse(errno.EROFS)

    def removexattr(self, path: str, name: str, fh: int | None = None) -> int:
        refuse(errno.EROFS)

    def statfs(self, path: str) -> dict[str, int]:
        return dict.fromkeys(
            ("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_flag"), 0
        ) | {
            "f_bsize": 4096,
            "f_frsize": 4096,
            "f_namemax": 255,
        }

    # Files

    def open(self, path: str, flags: int) -> int:
        refuse(errno.ENOENT)

    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        refuse(errno.EROFS)

    def created(self, path: str, mode: int, flags: int) -> tuple[int, Attributes]:
        """What create() returns, and the attributes of that file."""
        return self._looked_at(path, self.create(path, mode, flags))

    def _looked_at(self, path: str, fh: int) -> tuple[int, Attributes]:
        try:
            return fh, self.getattr(path, fh)
        except BaseException:
            self.release(path, fh)
            raise

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        out = bytearray(size)
        return bytes(out[: self.read_into(path, memoryview(out), offset, fh)])

    def read_into(self, path: str, out: memoryview, offset: int, fh: int) -> int:
        """Fill `out` as far as the file goes; how far that was."""
        refuse(errno.EBADF)

    def write(self, path: str, data: bytes | memoryview, offset: int, fh: int) -> int:
        refuse(errno.EROFS)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        refuse(errno.EROFS)

    def fallocate(self, path: str, mode: int, offset: int, length: int, fh: int) -> int:
        refuse(errno.EOPNOTSUPP)

    def lseek(self, path: str, offset: int, whence: int, fh: int) -> int:
        """Where data or a hole begins: SEEK_DATA and SEEK_HOLE alone."""
        refuse(errno.ENOSYS)

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        return 0

    # Directories

    def opendir(self, path: str) -> int:
        return 0

    def readdir(self, path: str, fh: int) -> Iterable[Listed]:
        """Names, "." and ".." first."""
        return [".", ".."]

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def releasedir(self, path: str, fh: int) -> int:
        return 0
