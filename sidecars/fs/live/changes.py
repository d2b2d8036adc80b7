"""A SETATTR, in the calls an operations class has for it, and in an order that loses nothing."""

import stat
import time
from typing import Final

from sidecars.fs.live.operations import Operations
from sidecars.fs.protocol.writing import NO_CHANGE, Changes, Valid

_TIMES: Final = Valid.ATIME | Valid.MTIME
_PRIVILEGED: Final = stat.S_ISUID | stat.S_ISGID


def apply(changes: Changes, operations: Operations, path: str, fh: int | None) -> None:
    """`fh`, any handle the file is open through, is named where it may have no path."""
    valid, more = changes.valid, {} if fh is None else {"fh": fh}
    if Valid.SIZE in valid:
        operations.truncate(path, changes.size, fh)
        if Valid.KILL_SUIDGID in valid:
            drop_privilege(operations, path, fh)
    if valid & (Valid.UID | Valid.GID):
        owner = (-1 if number == NO_CHANGE else number for number in (changes.uid, changes.gid))
        operations.chown(path, *owner, **more)
    if Valid.MODE in valid:  # after chown(2), which takes setuid away
        operations.chmod(path, changes.mode, **more)
    if valid & _TIMES == _TIMES and changes.atime is None and changes.mtime is None:
        operations.utimens(path, None, **more)
    elif valid & _TIMES:
        attrs, now = operations.getattr(path, fh), time.time_ns()
        atime = now if changes.atime is None else changes.atime
        mtime = now if changes.mtime is None else changes.mtime
        times = (
            atime if Valid.ATIME in valid else attrs["st_atime"],
            mtime if Valid.MTIME in valid else attrs["st_mtime"],
        )
        operations.utimens(path, times, **more)


def drop_privilege(operations: Operations, path: str, fh: int | None) -> None:
    """Take setuid and setgid away, as the kernel does when somebody else writes to a file."""
    mode = operations.getattr(path, fh)["st_mode"]
    keep = 0 if mode & stat.S_IXGRP else stat.S_ISGID  # without group execution it says something else
    if gone := mode & _PRIVILEGED & ~keep:
        more = {} if fh is None else {"fh": fh}
        operations.chmod(path, stat.S_IMODE(mode & ~gone), **more)
