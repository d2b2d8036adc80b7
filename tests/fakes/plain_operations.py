"""An operations class over a plain directory: what the front ends do, without any cipher in it."""

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sidecars.fs.live.operations import Attributes, Listed, Operations, refuse

_STAT = ("ino", "dev", "mode", "nlink", "uid", "gid", "size", "blocks", "blksize", "rdev")
_TIMES = ("atime", "mtime", "ctime")
_libc = ctypes.CDLL(None, use_errno=True)


class PlainOperations(Operations):
    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)

    def _at(self, path: str) -> str:
        return self.directory + path

    def _either(self, path: str, fh: int | None) -> Any:
        return self._at(path) if fh is None else fh

    def getattr(self, path: str, fh: int | None = None) -> Attributes:
        st = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        return {f"st_{name}": getattr(st, f"st_{name}") for name in _STAT} | {
            f"st_{name}": getattr(st, f"st_{name}_ns") for name in _TIMES
        }

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def mknod(self, path: str, mode: int, dev: int) -> int:
        os.mknod(self._at(path), mode, dev)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._at(target))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        names = (os.fsencode(self._at(name)) for name in (old, new))
        if _libc.renameat2(-100, next(names), -100, next(names), flags):
            refuse(ctypes.get_errno())
        return 0

    def chmod(self, path: str, mode: int, fh: int | None = None) -> int:
        os.chmod(self._either(path, fh), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int, fh: int | None = None) -> int:
        if fh is None:
            os.lchown(self._at(path), uid, gid)
        else:
            os.fchown(fh, uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None, fh: int | None = None) -> int:
        if fh is not None:
            os.utime(fh, ns=times) if times else os.utime(fh)
        elif times:
            os.utime(self._at(path), ns=times, follow_symlinks=False)
        else:
            os.utime(self._at(path), follow_symlinks=False)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0, fh: int | None = None) -> bytes:
        return os.getxattr(self._either(path, fh), name)

    def listxattr(self, path: str, fh: int | None = None) -> Iterable[str]:
        return os.listxattr(self._either(path, fh))

    def setxattr(
        self, path: str, name: str, value: bytes, options: int, position: int = 0, fh: int | None = None
    ) -> int:
        os.setxattr(self._either(path, fh), name, value, options)
        return 0

    def removexattr(self, path: str, name: str, fh: int | None = None) -> int:
        os.removexattr(self._either(path, fh), name)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        st = os.statvfs(self.directory)
        return {name: getattr(st, name) for name in dir(st) if name.startswith("f_")}

    def open(self, path: str, flags: int) -> int:
        mode = os.O_RDWR if flags & os.O_ACCMODE != os.O_RDONLY else os.O_RDONLY
        return os.open(self._at(path), mode | (flags & os.O_TRUNC))

    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | (flags & (os.O_TRUNC | os.O_EXCL)), mode)

    def read_into(self, path: str, out: memoryview, offset: int, fh: int) -> int:
        return os.preadv(fh, [out], offset)

    def write(self, path: str, data: bytes | memoryview, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._either(path, fh), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, length: int, fh: int) -> int:
        if _libc.fallocate(fh, mode, ctypes.c_long(offset), ctypes.c_long(length)):
            refuse(ctypes.get_errno())
        return 0

    def lseek(self, path: str, offset: int, whence: int, fh: int) -> int:
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            refuse(errno.EINVAL)
        return os.lseek(fh, offset, whence)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def readdir(self, path: str, fh: int) -> Iterable[Listed]:
        yield from (".", "..")
        with os.scandir(self._at(path)) as entries:
            for entry in entries:
                yield (
                    entry.name,
                    {"st_ino": entry.inode(), "st_mode": entry.stat(follow_symlinks=False).st_mode},
                    0,
                )
