"""Who is at the other end of a connection to the key socket: answered by the kernel, never by the caller.

    connection -> SO_PEERPIDFD, SO_PEERCRED pid -> /proc/PID/cgroup -> unit, or the uid where there is none

A pid can belong to another process by the time its control group is read. So the process itself is held by its
pidfd, and what was read counts only if that process is still alive afterwards: until it has ended, nobody else can
have its pid.

The unit is what comes first below the slices, where that is a service. Whatever is deeper was named by what runs there,
a container's services among them. A user's own service manager is no unit of the machine: what runs under it is its
user.
"""

import os
import re
import select
import socket
from pathlib import Path
from typing import Final

from guest.keysock.rights import Caller
from guest.peers import credentials, outermost
from strongroom.errors import PolicyError

SO_PEERPIDFD: Final = 77  # Linux 6.5
_PROC: Final = Path("/proc")
_USERS_MANAGER: Final = re.compile(r"user@\d+\.service")
_MAX_CGROUP: Final = 64 << 10  # bytes


def caller_of(connection: socket.socket, proc: Path = _PROC) -> Caller:
    """The unit and uid of the process that made the connection; PolicyError when it is gone, or cannot be seen."""
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:
        raise _gone() from None
    try:
        pid, uid, _ = credentials(connection)
        cgroups = _cgroups(pid, proc)
        if has_ended(pidfd):
            raise _gone()
    finally:
        os.close(pidfd)
    return Caller(uid=uid, unit=unit_in(cgroups))


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def unit_in(cgroups: str) -> str | None:
    """The service that systemd started, from the unified hierarchy's line (`0::/...`); None for a scope or a user's."""
    if not any(line.startswith("0::/") for line in cgroups.splitlines()):
        raise PolicyError("caller: the kernel names no control group of it")
    unit = outermost(cgroups)
    return None if unit is None or _USERS_MANAGER.fullmatch(unit) else unit


def _cgroups(pid: int, proc: Path) -> str:
    if pid <= 0:
        raise PolicyError("caller: it is in another pid namespace, want one that can be seen from here")
    try:
        with (proc / str(pid) / "cgroup").open("rb") as file:
            return file.read(_MAX_CGROUP).decode("utf-8", "replace")
    except OSError:
        raise _gone() from None


def _gone() -> PolicyError:
    return PolicyError("caller: it has ended, want it alive")
