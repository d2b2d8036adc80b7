"""The portable front end: an operations class mounted by libfuse, through mfusepy.

For kernels or machines where the raw one does not serve. It gives the same answers and is slower, because libfuse
walks its own tree of names and asks through ctypes. The only module of the sidecars that knows mfusepy.

One file that is open under two names has two page caches here: libfuse makes a node of each path. So nothing is kept
from one open to the next.
"""
# ruff: noqa: ARG002 - libfuse chooses the arguments

import ctypes
import os
import time
from pathlib import Path
from typing import Any, Final

from sidecars.fs.live.operations import Operations
from sidecars.fs.protocol.writing import MAX_TRANSFER
from strongroom.errors import MachineError

os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")  # mfusepy takes libfuse 2 where both are installed
import mfusepy

_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2
_BILLION: Final = 10**9
_OPTIONS: Final[dict[str, Any]] = {
    "foreground": True,
    "fsname": "strongroom",
    "subtype": "strongroom",
    "allow_other": True,
    "default_permissions": True,
    "nosuid": True,
    "nodev": True,
    "noexec": True,
    "use_ino": True,
    "attr_timeout": 0,
    "entry_timeout": 0,
    "negative_timeout": 0,
    "max_read": MAX_TRANSFER,
}
_ENDED: Final = 8  # what libfuse returns when a signal has ended its loop


def run(operations: Operations, mount: Path) -> None:
    """Mount, serve and unmount at SIGTERM or SIGINT; returns then. `operations.init` is called once it is mounted.

    To be called in the main thread. Raises MachineError.
    """
    if mfusepy.fuse_version_major != 3:
        raise MachineError(f"libfuse: version {mfusepy.fuse_version_major}, want 3")
    operations.caller = _caller
    try:
        _Front(operations, os.fspath(mount), **_OPTIONS)
    except (OSError, RuntimeError) as error:
        if error.args != (_ENDED,):
            raise MachineError(f"fuse mount {mount}: failed ({error})") from error


def _caller() -> tuple[int, int]:
    uid, gid, _ = mfusepy.fuse_get_context()
    return uid, gid


class _Front(mfusepy.FUSE):  # type: ignore[misc]
    """What mfusepy leaves out: flags of rename, times left as they are, seeking, transfers that are not copied."""

    def init_fuse_3(self, connection: Any, config: Any) -> None:
        connection.contents.max_read = connection.contents.max_write = MAX_TRANSFER
        super().init_fuse_3(connection, config)

    def read(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        room = _memory(buf, size)
        return self.operations.read_into(self._text(path), room, offset, fip.contents.fh)  # type: ignore[no-any-return]

    def write(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        data = _memory(buf, size)
        return self.operations.write(self._text(path), data, offset, fip.contents.fh)  # type: ignore[no-any-return]

    def readdir_fuse_3(
        self, path: bytes | None, buf: Any, filler: Any, offset: int, fip: Any, flags: int
    ) -> int:
        """Names alone: mfusepy would say that each has inode number 0, and the C library passes over those."""
        for entry in self.operations.readdir(self._text(path), fip.contents.fh):
            name = entry if isinstance(entry, str) else entry[0]
            if filler(buf, os.fsencode(name), None, 0, 0):
                break
        return 0

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        self.operations.rename(self._text(old), self._text(new), flags)
        return 0

    def utimens_fuse_3(self, path: bytes | None, buf: Any, fip: Any) -> int:
        text, fh = self._text(path), _handle(fip)
        times = [(spec.tv_sec, spec.tv_nsec) for spec in (buf.contents.actime, buf.contents.modtime)]
        if all(rest == _UTIME_NOW for _, rest in times):
            self.operations.utimens(text, None, fh)
            return 0
        attrs = self.operations.getattr(text, fh)
        now = time.time_ns()
        wanted = [
            {_UTIME_NOW: now, _UTIME_OMIT: attrs[name]}.get(rest, seconds * _BILLION + rest)
            for (seconds, rest), name in zip(times, ("st_atime", "st_mtime"), strict=True)
        ]
        self.operations.utimens(text, (wanted[0], wanted[1]), fh)
        return 0

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        self.operations.truncate(self._text(path), length, _handle(fip))
        return 0

    def lseek(self, path: bytes | None, offset: int, whence: int, fip: Any) -> int:
        return self.operations.lseek(self._text(path), offset, whence, fip.contents.fh)  # type: ignore[no-any-return]

    def _text(self, path: bytes | None) -> str:
        return "" if path is None else os.fsdecode(path)


def _handle(fip: Any) -> int | None:
    return int(fip.contents.fh) if fip else None


def _memory(buffer: Any, size: int) -> memoryview:
    """libfuse's own buffer: good until the call returns."""
    address = ctypes.cast(buffer, ctypes.c_void_p).value
    return memoryview((ctypes.c_char * size).from_address(address or 0)).cast("B")
