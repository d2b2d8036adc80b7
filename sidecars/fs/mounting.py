"""Mounting: the system calls Python has no names for, and the clearing of what a killed daemon left."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from sidecars.fs.protocol.frames import MAX_READ
from strongroom.errors import MachineError

TYPE: Final = "fuse.strongroom"
READ_AHEAD_KIB: Final = 8192  # the kernel's 128 KiB for every FUSE mount halves the speed of a mapped file
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_STALE: Final = {errno.ENOTCONN, errno.ECONNABORTED}
_STACKED: Final = 64  # stale mounts that may lie over each other

_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount(point: Path, device: int) -> None:
    """Mount the file system that `device`, an open /dev/fuse, will serve. The kernel's greeting waits in it then."""
    options = (
        f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read={MAX_READ}"
    )
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if _libc.mount(b"strongroom", os.fsencode(point), TYPE.encode(), ctypes.c_ulong(flags), options.encode()):
        raise MachineError(f"mount {point}: {_words()}")


def unmount(point: Path) -> None:
    """Take the mount out of sight at once; readers of open files keep it alive no longer than the daemon."""
    if (
        _libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        and ctypes.get_errno() != errno.EINVAL
    ):
        raise MachineError(f"unmount {point}: {_words()}")


def clear(point: Path) -> None:
    """Detach dead mounts from `point` and make the directory if it is absent."""
    for _ in range(_STACKED):
        if not _is_stale(point):
            break
        unmount(point)
    try:
        point.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"mount {point}: {(error.strerror or 'failed').lower()}") from error


def raise_read_ahead(point: Path) -> bool:
    """Let the kernel read further ahead; False when it does not let us."""
    device = point.stat().st_dev
    knob = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        knob.write_text(f"{READ_AHEAD_KIB}\n")
    except OSError:
        return False
    return True


def _is_stale(point: Path) -> bool:
    try:
        os.statvfs(point)  # stat() may be answered from the kernel's cache; this asks the daemon
    except OSError as error:
        return error.errno in _STALE
    return False


def _words() -> str:
    return os.strerror(ctypes.get_errno()).lower()
