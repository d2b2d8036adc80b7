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
    """The one service unit named by the unified hierarchy's line (`0::/...`)."""
    for line in cgroups.splitlines():
        if line.startswith("0::"):
            # Below a delegated unit a user chooses the names, so two of them say nothing.
            found = [part for part in line[3:].split("/") if part.endswith(".service")]
            if len(found) == 1:
                return found[0]
    raise PolicyError(f"peer: process {pid} belongs to no service unit, or to one inside another")
