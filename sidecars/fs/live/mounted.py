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
from sidecars.fs.mounting import clear, mount, raise_read_ahead, unmount
from sidecars.fs.protocol.writing import MAX_TRANSFER, WANTED_ALONE, WANTED_SHARED
from strongroom.errors import MachineError

_PATIENCE: Final = 0.2  # seconds that each thread may take to notice the unmount


@contextmanager
def mounted(
    operations: Operations,
    point: Path,
    report: Callable[[str], None],
    *,
    shared: bool = False,
    threads: int = THREADS,
) -> Iterator[Server]:
    """The server of a file system mounted at `point`, which is there and answers; unmounted at the end.

    The process must have an umask of 0: the kernel has taken the caller's from every mode. Raises MachineError.
    """
    clear(point)
    device = open_device()
    try:
        server = Server(device, Dispatcher(operations, shared=shared), report)
        mount(point, device, writable=True)
        try:
            greet(device, WANTED_SHARED if shared else WANTED_ALONE, max_write=MAX_TRANSFER)
            server.start(threads)
            operations.init("/")
            _confirm(point, report)
            yield server
        finally:
            unmount(point)
            server.join(_PATIENCE)
    finally:
        os.close(device)


def _confirm(point: Path, report: Callable[[str], None]) -> None:
    """Ask through the kernel, as everybody will."""
    try:
        os.statvfs(point)
    except OSError as error:
        raise MachineError(f"mount {point}: {(error.strerror or 'failed').lower()}") from error
    if not raise_read_ahead(point):
        report(f"mount {point}: read-ahead stays at the kernel's default, reads will be slow")
