"""Mirrors strongroom/host/notify.py."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.host import notify as module
from strongroom.host.notify import notify, status, watchdog_interval

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
