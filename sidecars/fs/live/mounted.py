"""Any operations class, mounted through the raw front end for as long as a context lasts."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sidecars.fs.device import greet, open_device
from sidecars.fs.live.dispatcher import Dispatcher
from sidecars.fs.live.operations import Operations
from sidecars.fs.live.server import THREADS, Server
from sidecars.fs.live.troubles import Troubles
from sidecars.fs.mounting import Mounted, clear, find, leave, mount, raise_read_ahead, unmount
from sidecars.fs.protocol.writing import MAX_TRANSFER, WANTED_ALONE, WANTED_SHARED
from strongroom.errors import MachineError

_PATIENCE: Final = 0.2  # seconds that each thread may take to notice the unmount


@contextmanager
def mounted(
    operations: Operations,
    point: Path,
    report: Callable[[str], None],
    *,
    note: Callable[[str], None] | None = None,
    shared: bool = False,
    threads: int = THREADS,
) -> Iterator[Server]:
    """The server of a file system mounted at `point`, which is there and answers; unmounted at the end.

    The process must have an umask of 0: the kernel has taken the caller's from every mode. `report` gets what stays a
    failure, `note` (or `report` without one) what passes. Raises MachineError, at the end also for another mount over
    this one, which then stays.
    """
    note = note or report
    _make_ready(point)
    device = open_device()
    try:
        server = Server(device, Dispatcher(operations, shared=shared), report, Troubles(note))
        mount(point, device, writable=True)
        made = _find(point)
        try:
            greet(device, WANTED_SHARED if shared else WANTED_ALONE, max_write=MAX_TRANSFER)
            server.start(threads)
            operations.init("/")
            _confirm(point, note)
            yield server
        finally:
            try:
                leave(point, made)
                _drop_dead(point)
            finally:
                server.join(_PATIENCE)
    finally:
        os.close(device)


def _make_ready(point: Path) -> None:
    """See that there is something to mount over: a directory, or the mount of a daemon that was killed.

    That one stays where it is until the end. Without it, whoever opens a file in that moment would find the bare
    directory, and write there in the clear for as long as the file is open.
    """
    if (found := find(point)) is None or not found.ours:
        clear(point)


def _drop_dead(point: Path) -> None:
    """Detach what killed daemons have left below."""
    while (found := find(point)) is not None and found.ours:
        unmount(point)


def _find(point: Path) -> Mounted:
    if (made := find(point)) is None or not made.ours:
        raise MachineError(f"mount {point}: not there after it was mounted")
    return made


def _confirm(point: Path, note: Callable[[str], None]) -> None:
    """Ask through the kernel, as everybody will."""
    try:
        os.statvfs(point)
    except OSError as error:
        raise MachineError(f"mount {point}: {(error.strerror or 'failed').lower()}") from error
    if not raise_read_ahead(point):
        note(f"mount {point}: read-ahead stays at the kernel's default, reads will be slow")
