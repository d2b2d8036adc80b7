"""The engine's network namespace: a loopback interface and nothing else, made here, checked from outside.

pyroute2 enters through this module only.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

import pyroute2
from pyroute2 import netns
from pyroute2.netlink.exceptions import NetlinkError

from strongroom.errors import MachineError

_LOOPBACK: Final = 1  # interface index of lo in every new namespace
_HEADER_LINES: Final = 2  # of /proc/PID/net/dev


def create(name: str) -> None:
    """Make a namespace called `name` (below /run/netns) with loopback up, replacing one that was left behind."""
    remove(name)
    try:
        netns.create(name)
        with pyroute2.NetNS(name) as link:
            link.link("set", index=_LOOPBACK, state="up")
    except (OSError, NetlinkError) as error:
        raise MachineError(f"network namespace {name}: {error}") from error


def remove(name: str) -> None:
    """Forget the namespace; it ends with the last process inside."""
    with suppress(OSError):
        netns.remove(name)


def check_sealed(pid: int, proc: Path = Path("/proc")) -> None:
    """Raise MachineError unless process `pid` sees loopback as its only network interface."""
    try:
        lines = (proc / str(pid) / "net" / "dev").read_text().splitlines()[_HEADER_LINES:]
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended; its unit tells
    except OSError as error:
        raise MachineError(f"network of process {pid}: cannot be read: {error.strerror}") from error
    names = sorted(line.partition(":")[0].strip() for line in lines)
    if names != ["lo"]:
        raise MachineError(
            f"network of process {pid}: has {', '.join(names) or 'no interface'}, want lo alone"
        )
