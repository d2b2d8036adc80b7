"""Whose process is at the other end of a loopback connection: its uid, as the kernel's table of TCP sockets has it.

A row counts while its socket is established and held by somebody: one that was closed shows uid 0 for whoever it was.
The four numbers of a connection belong to nobody else while our end of it is open.

Source: Linux Documentation/networking/proc_net_tcp.rst.
"""

import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from guest.keysock.rights import Caller
from strongroom.errors import MachineError, PolicyError

TABLE: Final = Path("/proc/self/net/tcp")
_ESTABLISHED: Final = "01"
_COLUMNS: Final = 10  # up to the inode


def caller_of(connection: socket.socket, table: Path = TABLE) -> Caller:
    """The caller, without a unit; PolicyError for one that is not on this machine, or has left already."""
    try:
        (here, port), (there, their_port) = connection.getsockname(), connection.getpeername()
        rows = table.read_text()
    except OSError as error:
        raise MachineError(f"caller: {(error.strerror or 'gone').lower()}") from None
    if not IPv4Address(there).is_loopback:
        raise PolicyError("caller: not on this machine, want one over loopback")
    uid = uid_in(rows, local=(there, their_port), remote=(here, port))
    if uid is None:
        raise PolicyError("caller: it has closed its end, want it open until the answer")
    return Caller(uid=uid)


def uid_in(rows: str, *, local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """Who holds the established socket of these two ends, in the table's text; None where nobody does."""
    wanted = [_shown(local), _shown(remote), _ESTABLISHED]
    for row in rows.splitlines()[1:]:
        columns = row.split()
        if len(columns) >= _COLUMNS and columns[1:4] == wanted and columns[9] != "0":
            return int(columns[7])
    return None


def _shown(end: tuple[str, int]) -> str:
    """An end as the table writes it: the address as a number of this machine's byte order."""
    octets = IPv4Address(end[0]).packed
    return f"{int.from_bytes(octets, 'little'):08X}:{end[1]:04X}"
