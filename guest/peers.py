"""Which systemd unit is at the other end of a local socket: answered by the kernel, never by the peer.

connection -> SO_PEERCRED pid -> /proc/PID/cgroup -> unit
"""

import socket
import struct
from pathlib import Path

from strongroom.errors import PolicyError


def unit_of(connection: socket.socket, proc: Path = Path("/proc")) -> str:
    """The unit (`x.service`) of the connected process, or PolicyError when it has none."""
    pid, _, _ = credentials(connection)
    return unit_in((proc / str(pid) / "cgroup").read_text(), pid)


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of the connected process, at the time it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", raw)
    return pid, uid, gid


def unit_in(cgroups: str, pid: int) -> str:
    """The service unit named by the unified hierarchy's line (`0::/...`), or PolicyError when there is none."""
    if (unit := outermost(cgroups)) is None:
        raise PolicyError(f"peer: process {pid} belongs to no service unit")
    return unit


def outermost(cgroups: str) -> str | None:
    """The service that systemd itself started: what comes first below the slices. None for a scope, or none of it.

    Whatever lies deeper was named by what runs there: a container in a scope names its services as it likes. A
    user's services are in that user's manager, and are `user@UID.service`.
    """
    for line in cgroups.splitlines():
        if line.startswith("0::/"):
            parts = line.removeprefix("0::/").split("/")
            first = next((part for part in parts if not part.endswith(".slice")), "")
            return first if first.endswith(".service") else None
    return None
