"""Memory for decrypted files: a tmpfs of huge pages that is mounted nowhere.

It exists as one descriptor (fsmount(2)): no path leads to it, in no namespace, and it is gone with the last descriptor
that knows it. It is never swapped out. A file is named by the number of its node.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError

HUGE_PAGE: Final = 2 << 20  # bytes
_FSOPEN: Final = 430  # the same number on every architecture
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_CLOEXEC: Final = 1
_SET_FLAG: Final = 0
_SET_STRING: Final = 1
_CREATE: Final = 6
_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

_libc: Final = ctypes.CDLL(None, use_errno=True)


def make_memory(limit: int) -> int:
    """A fresh one that holds at most `limit` bytes. Takes CAP_SYS_ADMIN and Linux 6.4 (noswap)."""
    context = _call(_FSOPEN, b"tmpfs", _CLOEXEC)
    try:
        for key, value in ((b"huge", b"always"), (b"size", b"%d" % limit), (b"mode", b"0700")):
            _call(_FSCONFIG, context, _SET_STRING, key, value, 0)
        _call(_FSCONFIG, context, _SET_FLAG, b"noswap", None, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV_NOEXEC)
    finally:
        os.close(context)


def create(memory: int, name: str, size: int) -> None:
    """An empty file of `size` bytes, none of them there yet."""
    fd = os.open(name, _NEW, 0o600, dir_fd=memory)
    try:
        os.truncate(fd, size)
    finally:
        os.close(fd)


def open_file(memory: int, name: str, *, writable: bool = False) -> int:
    return os.open(name, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC, dir_fd=memory)


def remove(memory: int, name: str) -> None:
    """Give the pages back; those the kernel reads for somebody when it has closed them."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=memory)


def room(size: int) -> int:
    """What a file of `size` bytes takes."""
    return -(-size // HUGE_PAGE) * HUGE_PAGE


def available() -> int:
    """Bytes that programs may still take, by the kernel's own reckoning (MemAvailable)."""
    return _reckoning()["MemAvailable"]


def total() -> int:
    return _reckoning()["MemTotal"]


def _reckoning() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) * 1024 for fields in lines if len(fields) == 3}


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise MachineError(f"memory: {os.strerror(ctypes.get_errno()).lower()}, want a tmpfs of huge pages")
    return result
