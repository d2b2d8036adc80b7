"""Mounting: the system calls Python has no names for, and the clearing of what a killed daemon left."""

import ctypes
import errno
import os
import re
from dataclasses import dataclass
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
_STACKED: Final = 64  # mounts that may lie over each other
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")

_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount(point: Path, device: int, *, writable: bool = False) -> None:
    """Mount the file system that `device`, an open /dev/fuse, will serve. The kernel's greeting waits in it then."""
    options = (
        f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read={MAX_READ}"
    )
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | (0 if writable else _MS_RDONLY)
    if _libc.mount(b"strongroom", os.fsencode(point), TYPE.encode(), ctypes.c_ulong(flags), options.encode()):
        raise MachineError(f"mount {point}: {_words()}")


def unmount(point: Path) -> None:
    """Take the mount out of sight at once; readers of open files keep it alive no longer than the daemon."""
    if (
        _libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        and ctypes.get_errno() != errno.EINVAL
    ):
        raise MachineError(f"unmount {point}: {_words()}")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount among all others, by the kernel's own numbers for it."""

    id: int
    device: str  # major:minor, the st_dev of every file in it
    type: str

    @property
    def ours(self) -> bool:
        """Whether a daemon like us made it; not, whether it was this one."""
        return self.type == TYPE


def leave(point: Path, made: Mounted) -> None:
    """Unmount what was `made` if it is there, and nothing that lies below it. Raises MachineError for another mount."""
    if (found := find(point)) is None:
        return
    if found != made:
        raise MachineError(f"unmount {point}: {_which(found)} lies there, want {_which(made)}")
    unmount(point)


def clear(point: Path) -> None:
    """Detach every mount of ours from `point`, and make the directory if it is absent. MachineError for any other.

    A mount is not asked whether it lives: where nobody serves it, the answer would never come.
    """
    for _ in range(_STACKED):
        if (found := find(point)) is None:
            break
        if not found.ours:
            raise MachineError(f"mount {point}: {_which(found)} lies there, want none")
        unmount(point)
    try:
        for above in reversed(point.parents):  # each with that mode: `parents=True` has one of its own
            if not above.exists():
                above.mkdir(mode=0o755)
        point.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise MachineError(f"mount {point}: {(error.strerror or 'failed').lower()}") from error


def find(point: Path) -> Mounted | None:
    """The topmost mount at `point`, of whatever type, if there is any. Asks nobody who serves it."""
    want, found = os.fsencode(Path(os.path.realpath(point.parent)) / point.name), None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if _unescape(fields[4]) == want:
            kind = os.fsdecode(fields[fields.index(b"-") + 1])
            found = Mounted(int(fields[0]), fields[2].decode(), kind)
    return found


def abort(mounted: Mounted) -> bool:
    """End what waits for an answer with an error, even where a process that cannot be killed holds the device.

    False where no control file system of FUSE is mounted.
    """
    major, minor = (int(word) for word in mounted.device.split(":"))
    try:
        (_CONNECTIONS / str(major << 20 | minor) / "abort").write_text("1")
    except OSError:
        return False
    return True


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


def raise_read_ahead(point: Path) -> bool:
    """Let the kernel read further ahead; False when it does not let us."""
    if (found := find(point)) is None:  # nobody is asked: it may be us who would have to answer
        return False
    knob = Path(f"/sys/class/bdi/{found.device}/read_ahead_kb")
    try:
        knob.write_text(f"{READ_AHEAD_KIB}\n")
    except OSError:
        return False
    return True


def _which(mounted: Mounted) -> str:
    return f"mount {mounted.id} ({mounted.type}, device {mounted.device})"


def _words() -> str:
    return os.strerror(ctypes.get_errno()).lower()
