"""Mirrors strongroom/host/notify.py."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.host import notify as module
from strongroom.host.notify import inherited, keep, let_go, notify, status, watchdog_interval

LIBRARY = vars(module)["_library"]  # None where systemd's library is not installed


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A service manager's end of $NOTIFY_SOCKET."""
    name = f"strongroom-test-{os.getpid()}"
    shown, address = (
        (f"@{name}", f"\0{name}") if request.param == "abstract" else [str(socket_dir / "notify")] * 2
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", shown)
        monkeypatch.setattr(module, "_library", None)
        yield listener


def test_a_datagram_arrives(manager: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=serving")
    assert manager.recv(100) == b"READY=1\nSTATUS=serving"


def test_a_status_is_one_assignment(manager: socket.socket) -> None:
    assert status("chunk 7\nREADY=1\tof  x")
    assert manager.recv(100) == b"STATUS=chunk 7 READY=1 of x"


def test_a_name_that_is_no_text_is_told_as_far_as_it_goes(manager: socket.socket) -> None:
    assert status("weights-\udcff: missing")
    assert manager.recv(100) == b"STATUS=weights-?: missing"


@pytest.mark.parametrize("library", [None, LIBRARY], ids=["datagram", "library"])
def test_a_manager_that_does_not_read_holds_nobody_up(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, library: object
) -> None:
    monkeypatch.setattr(module, "_library", library)
    monkeypatch.setattr(module, "_PATIENCE", 0.001)
    sent = [notify("WATCHDOG=1") for _ in range(300)]
    assert sent[0]
    assert not sent[-1]


def test_a_descriptor_is_kept(manager: socket.socket) -> None:
    here, there = os.pipe()
    assert keep("device", there)
    data, (copy,), _, _ = socket.recv_fds(manager, 100, 4)
    assert data == b"FDSTORE=1\nFDNAME=device\nFDPOLL=0"
    os.write(copy, b"x")
    assert os.read(here, 9) == b"x"
    assert let_go("device")
    assert socket.recv_fds(manager, 100, 4)[:2] == (b"FDSTOREREMOVE=1\nFDNAME=device", [])
    for descriptor in (here, there, copy):
        os.close(descriptor)


def test_nobody_keeps_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not keep("device", 0)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    assert not keep("device", 0)
    assert not let_go("device")


@pytest.mark.parametrize(
    ("environ", "want"),
    [
        ({}, {}),
        ({"LISTEN_PID": "ours", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:a"}, {"a": [3, 5], "b": [4]}),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}, {}),
        ({"LISTEN_PID": "ours", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, {}),
        ({"LISTEN_PID": "ours", "LISTEN_FDS": "-1", "LISTEN_FDNAMES": "a"}, {}),
        ({"LISTEN_PID": "ours", "LISTEN_FDS": "", "LISTEN_FDNAMES": ""}, {}),
    ],
)
def test_what_was_handed_over(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], want: dict[str, list[int]]
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(os, "set_inheritable", lambda fd, _: closed.append(fd))
    given = {name: str(os.getpid()) if value == "ours" else value for name, value in environ.items()}
    assert inherited(given) == want
    assert given == {}  # no child takes them for its own
    assert closed == sorted(fd for found in want.values() for fd in found)


def test_nobody_listens() -> None:
    assert not notify("READY=1")


@pytest.mark.parametrize("address", ["/nowhere/notify", "@strongroom-nobody", "/" + "x" * 200])
def test_a_vanished_socket_is_no_failure(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(module, "_library", None)
    assert not notify("READY=1")


def test_systemds_library_is_used_when_there(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def library(state: str) -> bool:
        said.append(state)
        return True

    monkeypatch.setattr(module, "_library", library)
    assert notify("READY=1")
    assert said == ["READY=1"]


@pytest.mark.parametrize(
    ("usec", "pid", "want"),
    [
        ("10000000", None, 5.0),
        ("10000000", str(os.getpid()), 5.0),
        ("10000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        ("-5", None, None),
        (None, None, None),
    ],
)
def test_watchdog_interval(
    usec: str | None, pid: str | None, want: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == want
