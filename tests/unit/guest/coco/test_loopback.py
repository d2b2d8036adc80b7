"""Mirrors guest/coco/loopback.py: over a real connection, and over tables as the kernel writes them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from guest.coco.loopback import caller_of, uid_in
from guest.keysock.rights import Caller
from strongroom.errors import MachineError, PolicyError
from tests import need

HEAD: Final = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
CLIENT: Final = ("127.0.0.1", 40000)
SERVER: Final = ("127.0.0.1", 8006)


def row(
    state: str = "01", uid: int = 1000, inode: int = 77, ends: str = "0100007F:9C40 0100007F:1F46"
) -> str:
    return f"   0: {ends} {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 0 20 4 30 10 -1\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


def test_a_row_names_who_holds_it() -> None:
    assert uid_in(HEAD + row(), local=CLIENT, remote=SERVER) == 1000
    other = row(uid=5, ends="0100007F:1F46 0100007F:9C40")
    assert uid_in(HEAD + other + row(), local=CLIENT, remote=SERVER) == 1000


@pytest.mark.parametrize(
    "rows",
    [
        "",
        HEAD,
        HEAD + row(state="04"),  # closed by its owner: what it says of him is no longer true
        HEAD + row(state="06", uid=0, inode=0),
        HEAD + row(uid=0, inode=0),
        HEAD + row(ends="0200007F:9C40 0100007F:1F46"),
        HEAD + row(ends="0100007F:9C41 0100007F:1F46"),
        HEAD + "   0: 0100007F:9C40 0100007F:1F46 01\n",
        row(),  # a table without its first line
    ],
)
def test_nobody_holds_it(rows: str) -> None:
    assert uid_in(rows, local=CLIENT, remote=SERVER) is None


def test_a_connection_of_ours_is_ours(listener: socket.socket) -> None:
    client = closing(socket.create_connection(listener.getsockname()))
    with client, closing(listener.accept()[0]) as connection:
        assert caller_of(connection) == Caller(uid=os.getuid())


def test_a_connection_of_another_user_is_his(listener: socket.socket) -> None:
    need(os.getuid() == 0, "becoming another user needs root")
    port = listener.getsockname()[1]
    program = (
        f"import os,socket,sys; os.setuid(12345); s=socket.create_connection(('127.0.0.1',{port}));"
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        with closing(listener.accept()[0]) as connection:
            assert caller_of(connection) == Caller(uid=12345)
        child.communicate(b"")


@pytest.mark.guarantee("G3")
def test_who_has_closed_his_end_is_nobody(listener: socket.socket) -> None:
    with closing(socket.create_connection(listener.getsockname())) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with closing(listener.accept()[0]) as connection, pytest.raises(PolicyError, match="closed its end"):
        caller_of(connection)


def test_who_comes_from_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return ("192.0.2.1", 40000)

        def getsockname(self) -> tuple[str, int]:
            return SERVER

    with Connection() as connection, pytest.raises(PolicyError, match="not on this machine"):
        caller_of(connection)


def test_no_table_no_caller(listener: socket.socket, tmp_path: Path) -> None:
    client = closing(socket.create_connection(listener.getsockname()))
    with (
        client,
        closing(listener.accept()[0]) as connection,
        pytest.raises(MachineError, match="no such file"),
    ):
        caller_of(connection, tmp_path / "tcp")
