"""Telling the service manager how we are. The one place that knows systemd's library, and works without it.

The protocol is one datagram of NAME=value lines to the socket named by $NOTIFY_SOCKET (sd_notify(3)). Nobody
listening is not an error: the same program runs in a terminal.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

from strongroom.host.waiting import wait_writable

try:
    from systemd.daemon import notify as _library
except ImportError:  # not installed, or "systemd" is only a folder of unit files
    _library = None

PING: Final = "WATCHDOG=1"
_SOCKET: Final = "NOTIFY_SOCKET"
_FIRST: Final = 3  # sd_listen_fds(3)
_PATIENCE: Final = 1.0  # seconds; a manager that does not read must not hold us up


def notify(state: str) -> bool:
    """Send lines like "READY=1" or "STATUS=..."; False when nobody took them. Raises no OSError."""
    if not os.environ.get(_SOCKET):
        return False
    printable = state.encode(errors="replace").decode()  # a sentence may name a file whose name is not UTF-8
    try:
        return _send(printable)
    except OSError:  # the manager went away: what we tell it cannot matter to what we serve
        return False


def has_manager() -> bool:
    """Whether anybody is said to listen."""
    return bool(os.environ.get(_SOCKET))


def status(sentence: str) -> bool:
    """Show one sentence in `systemctl status`. A line break cannot smuggle in a second assignment."""
    return notify("STATUS=" + " ".join(sentence.split()))


def keep(name: str, descriptor: int) -> bool:
    """Have the manager hold a copy of `descriptor` for as long as the unit is not stopped (FDSTORE=1).

    It is handed back by inherited() to whoever runs next. It is not looked at (FDPOLL=0): that some devices report an
    error now is no reason to let go of them.
    """
    return _tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [descriptor])


def let_go(name: str) -> bool:
    """Have the manager close every descriptor it keeps under `name`."""
    return _tell(f"FDSTOREREMOVE=1\nFDNAME={name}", [])


def inherited(environ: MutableMapping[str, str] = os.environ) -> Mapping[str, Sequence[int]]:
    """Descriptors that were handed over to this process, by name (sd_listen_fds(3)). For the first caller alone."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()) or len(names) != int(count):
        return found
    for number, name in enumerate(names, _FIRST):
        os.set_inheritable(number, False)
        found.setdefault(name, []).append(number)
    return found


def watchdog_interval() -> float | None:
    """Seconds between WATCHDOG=1 pings, half of what the unit allows; None when nobody waits for them."""
    allowed, owner = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not (allowed.isascii() and allowed.isdigit() and int(allowed)):
        return None
    if owner and owner != str(os.getpid()):
        return None
    return int(allowed) / 1_000_000 / 2


def _tell(state: str, descriptors: Sequence[int]) -> bool:
    """As notify(), with descriptors, for which the library has no place."""
    if not os.environ.get(_SOCKET):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_PATIENCE)
            sender.connect(_address())
            socket.send_fds(sender, [state.encode()], descriptors)
    except OSError:
        return False
    return True


def _address() -> str:
    address = os.environ[_SOCKET]
    return "\0" + address[1:] if address.startswith("@") else address


def _send(state: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.connect(_address())
        # The library waits for as long as the manager's queue is full, so it is only called when there is room.
        # A ping is not worth waiting for: the next one comes soon, and whoever pings has other work.
        if not wait_writable(sender.fileno(), 0 if state == PING else _PATIENCE):
            return False
        if _library is not None:
            return bool(_library(state))
        sender.sendall(state.encode())
    return True
