"""A software TPM: swtpm behind a unix socket that speaks raw TPM commands."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.run import Child, spawn

SOCKET: Final = "tpm.sock"
_MAX_SOCKET_PATH: Final = 107  # bytes, sockaddr_un
_START: Final = 10.0  # seconds


@contextmanager
def vtpm(directory: Path) -> Iterator[Path]:
    """The socket of a freshly started TPM that keeps its state in `directory` and ends with the context."""
    server, control, state = directory / SOCKET, directory / "control.sock", directory / "state"
    if len(bytes(control)) > _MAX_SOCKET_PATH:
        raise MachineError(f"vtpm {control}: path is too long for a socket, want {_MAX_SOCKET_PATH} bytes")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in (server, control):
        stale.unlink(missing_ok=True)
    argv = ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]
    argv += ["--server", f"type=unixio,path={server}", "--ctrl", f"type=unixio,path={control}"]
    argv += ["--tpmstate", f"dir={state}", "--log", f"file={directory / 'swtpm.log'}"]
    with spawn(argv) as child:
        _await_socket(server, child)
        yield server


def _await_socket(server: Path, child: Child) -> None:
    until = time.monotonic() + _START
    while not _listens(server):  # the file is there a moment before anybody listens
        child.check()
        if time.monotonic() > until:
            raise MachineError(f"vtpm: no socket after {_START:g} s")
        time.sleep(0.02)


def _listens(server: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(os.fspath(server)) == 0
