"""Listening sockets handed over by systemd, by the name of their socket unit's FileDescriptorName=."""

import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Final

from strongroom.errors import MachineError

_FIRST: Final = 3  # sd_listen_fds(3)


def inherited(environ: MutableMapping[str, str] = os.environ) -> Mapping[str, socket.socket]:
    """Name -> socket. Clears the variables, so that no child believes they are its own.

    Raises MachineError when two sockets share a name.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "0")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit() or len(names) != int(count):
        return {}
    found: dict[str, socket.socket] = {}
    for number, name in enumerate(names, start=_FIRST):
        os.set_inheritable(number, False)
        if name in found:
            raise MachineError(f"listeners: two sockets are called {name}, want one")
        found[name] = socket.socket(fileno=number)
    return found


def wanted(found: Mapping[str, socket.socket], name: str) -> socket.socket:
    if name not in found:
        raise MachineError(
            f"listeners: systemd handed over no socket called {name}; start the agent as a unit"
        )
    return found[name]
