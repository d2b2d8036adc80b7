"""Telling the service manager how we are. The one place that knows systemd's library, and works without it.

The protocol is one datagram of NAME=value lines to the socket named by $NOTIFY_SOCKET (sd_notify(3)). Nobody
listening is not an error: the same program runs in a terminal.
"""

import os
import select
import socket
from typing import Final

try:
    from systemd.daemon import notify as _library
except ImportError:  # not installed, or "systemd" is only a folder of unit files
    _library = None

PING: Final = "WATCHDOG=1"
_SOCKET: Final = "NOTIFY_SOCKET"
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


def status(sentence: str) -> bool:
    """Show one sentence in `systemctl status`. A line break cannot smuggle in a second assignment."""
    return notify("STATUS=" + " ".join(sentence.split()))


def watchdog_interval() -> float | None:
    """Seconds between WATCHDOG=1 pings, half of what the unit allows; None when nobody waits for them."""
    allowed, owner = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not (allowed.isascii() and allowed.isdigit() and int(allowed)):
        return None
    if owner and owner != str(os.getpid()):
        return None
    return int(allowed) / 1_000_000 / 2


def _send(state: str) -> bool:
    address = os.environ[_SOCKET]
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.connect(address)
        # The library waits for as long as the manager's queue is full, so it is only called when there is room.
        # A ping is not worth waiting for: the next one comes soon, and whoever pings has other work.
        if not select.select([], [sender], [], 0 if state == PING else _PATIENCE)[1]:
            return False
        if _library is not None:
            return bool(_library(state))
        sender.sendall(state.encode())
    return True
