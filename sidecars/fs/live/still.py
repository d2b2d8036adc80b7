"""A volume that never changes as an operations class, for the portable front end. The daemon serves these faster."""
# ruff: noqa: ARG002 - fusepy gives every method a path, needed or not

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from sidecars.fs.live.operations import Attributes, Listed, Operations, refuse
from strongroom.errors import MachineError, VerifyError
from strongroom.host.stored import Reader, Source


class StillVolume(Operations):
    """Handles are places in the table. Everything belongs to `uid` and root's group.

    `report` gets a sentence about what does not verify. Usable from several threads.
    """

    def __init__(self, source: Source, *, uid: int = 0, report: Callable[[str], None]) -> None:
        self._source: Final = source
        self._uid: Final = uid
        self._report: Final = report
        self._items: Final = tuple(source.items)
        self._numbers: Final = {f"/{os.fsdecode(item.path)}": n for n, item in enumerate(self._items)}
        self._names: Final[dict[str, list[tuple[str, Attributes, int]]]] = {}
        for path, number in self._numbers.items():
            if path != "/":
                above, _, name = path.rpartition("/")
                entry = (name, {"st_ino": number + 1, "st_mode": self._items[number].mode}, 0)
                self._names.setdefault(above or "/", []).append(entry)
        self._readers: Final = deque[Reader]()  # not one for each thread: libfuse's are not ours to know

    def _number(self, path: str) -> int:
        if (number := self._numbers.get(path)) is None:
            refuse(errno.ENOENT)
        return number

    def getattr(self, path: str, fh: int | None = None) -> Attributes:
        number = self._number(path) if fh is None else fh
        item = self._items[number]
        return {
            "st_ino": number + 1,
            "st_mode": item.mode,
            "st_nlink": item.nlink,
            "st_uid": self._uid,
            "st_gid": 0,
            "st_size": len(item.target) if stat.S_ISLNK(item.mode) else item.size,
            "st_blksize": self._source.unit,
            "st_blocks": -(-item.size // 512),
            "st_atime": item.mtime_ns,
            "st_mtime": item.mtime_ns,
            "st_ctime": item.mtime_ns,
        }

    def readlink(self, path: str) -> str:
        item = self._items[self._number(path)]
        if not stat.S_ISLNK(item.mode):
            refuse(errno.EINVAL)
        return os.fsdecode(item.target)

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            refuse(errno.EROFS)
        return self._number(path)

    def read_into(self, path: str, out: memoryview, offset: int, fh: int) -> int:
        item = self._items[fh]
        size = min(len(out), item.size - offset)
        if size <= 0:
            return 0
        if item.content is not None or item.key is None:
            out[:size] = (item.content or b"")[offset : offset + size]
            return size
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = self._source.reader()
        try:
            reader.read_into(item.key, offset, out[:size])
        except (VerifyError, MachineError) as error:
            out[:size] = bytes(size)
            self._report(f"{error}; read refused")
            refuse(errno.EIO)
        finally:
            self._readers.append(reader)
        return size

    def readdir(self, path: str, fh: int) -> Iterable[Listed]:
        if not stat.S_ISDIR(self._items[self._number(path)].mode):
            refuse(errno.ENOTDIR)
        return [".", "..", *self._names.get(path, [])]

    def statfs(self, path: str) -> dict[str, int]:
        total = sum(item.size for item in self._items)
        full = {"f_blocks": -(-total // 4096), "f_files": len(self._items)}
        return super().statfs(path) | full
