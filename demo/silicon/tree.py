"""The report entries as a file system: a FUSE tree that a bind mount shows where configfs would be.

The only module that knows mfusepy. One thread, nothing cached, permissions held by the kernel; anybody may
look, as in configfs, so that a process in a container can use it. SIGTERM ends it and unmounts.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import mfusepy

from demo.silicon.entries import ATTRIBUTES, Attribute, Entries
from strongroom.errors import MachineError
from strongroom.host.run import run

_PAGE: Final = 4096  # what configfs shows as the size of a text attribute
_OPTIONS: Final[dict[str, Any]] = {
    "foreground": True,
    "nothreads": True,
    "allow_other": True,
    "default_permissions": True,
    "direct_io": True,  # sizes are not known before a read
    "attr_timeout": 0,
    "entry_timeout": 0,
    "negative_timeout": 0,
    "fsname": "insecure-simulated-tsm",
}


def serve(mount: Path, entries: Entries, ready: Callable[[], None]) -> None:
    """Serve `entries` at `mount` until SIGTERM or SIGINT; `ready` is called once it is mounted.

    A mount left there by a server that was killed is detached first. Raises MachineError.
    """
    try:
        mount.stat()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            run(["fusermount3", "-u", "-z", mount])
    try:
        mount.mkdir(parents=True, exist_ok=True)
        mfusepy.FUSE(_Tree(entries, ready), os.fspath(mount), **_OPTIONS)
    except (OSError, RuntimeError) as error:
        raise MachineError(f"fuse mount {mount}: failed ({error})") from error


class _Tree:
    """Callbacks by libfuse's names. An OSError is the answer of the call."""

    use_ns = True  # mfusepy: times are whole nanoseconds

    def __init__(self, entries: Entries, ready: Callable[[], None]) -> None:
        self._entries = entries
        self._ready = ready

    def init(self, _path: str) -> None:
        self._ready()

    def getattr(self, path: str, _number: int | None = None) -> dict[str, int]:
        name, attribute = self._find(path)
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        if attribute is not None:
            size = 0 if attribute.binary else _PAGE
            return {"st_mode": stat.S_IFREG | attribute.mode, "st_nlink": 1, "st_size": size, **owner}
        links = 2 if name else 2 + len(self._entries.names())
        return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": links, **owner}

    def readdir(self, path: str, _number: int) -> list[str]:
        name, attribute = self._find(path)
        if attribute is not None:
            _refuse(errno.ENOTDIR)
        return [".", "..", *(ATTRIBUTES if name else self._entries.names())]

    def mkdir(self, path: str, _mode: int) -> None:
        name = path[1:]
        if "/" in name:
            _refuse(errno.EPERM)  # an entry has no children to make
        self._entries.make(name)

    def rmdir(self, path: str) -> None:
        self._entries.drop(path[1:])

    def open(self, path: str, flags: int) -> int:
        name, attribute = self._find(path)
        if attribute is None:
            _refuse(errno.EISDIR)
        return self._entries.open(name, attribute, flags)

    def read(self, _path: str, size: int, offset: int, number: int) -> bytes:
        return self._entries.read(number, size, offset)

    def write(self, _path: str, value: bytes, offset: int, number: int) -> int:
        return self._entries.write(number, value, offset)

    def flush(self, _path: str, number: int) -> None:
        self._entries.flush(number)

    def release(self, _path: str, number: int) -> None:
        self._entries.release(number)

    def truncate(self, _path: str, _length: int, _number: int | None = None) -> None:
        """configfs lets O_TRUNC pass and does nothing."""

    def create(self, _path: str, _mode: int, _flags: int | None = None) -> NoReturn:
        _refuse(errno.EACCES)

    def mknod(self, _path: str, _mode: int, _device: int) -> NoReturn:
        _refuse(errno.EPERM)

    def unlink(self, _path: str) -> NoReturn:
        _refuse(errno.EPERM)

    def rename(self, _old: str, _new: str) -> NoReturn:
        _refuse(errno.EPERM)

    def symlink(self, _target: str, _source: str) -> NoReturn:
        _refuse(errno.EPERM)

    def link(self, _target: str, _source: str) -> NoReturn:
        _refuse(errno.EPERM)

    def _find(self, path: str) -> tuple[str, Attribute | None]:
        """("", None) for the root, (name, None) for an entry, (name, attribute) for a file."""
        name, slash, filename = path[1:].partition("/")
        if not name:
            return "", None
        if name not in self._entries.names() or (slash and filename not in ATTRIBUTES):
            _refuse(errno.ENOENT)
        return name, ATTRIBUTES[filename] if slash else None


def _refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))
