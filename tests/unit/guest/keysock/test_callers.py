"""Mirrors guest/keysock/callers.py: over real sockets, with processes that end at the worst moment."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.keysock import callers
from guest.keysock.callers import caller_of, has_ended, unit_in
from guest.keysock.rights import Caller
from strongroom.errors import PolicyError


@pytest.mark.parametrize(
    ("line", "unit"),
    [
        ("0::/system.slice/api.service", "api.service"),
        ("0::/system.slice/api.service/sub", "api.service"),
        ("0::/system.slice/system-app.slice/app@1.service", "app@1.service"),
        # what is below a unit may have been named by it: the outer one counts
        ("0::/system.slice/b.service/a.service", "b.service"),
        ("0::/machine.slice/pod.service/payload/system.slice/a.service", "pod.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", None),
        ("0::/user.slice/user-1000.slice/session-3.scope", None),
        ("0::/system.slice/docker-0123.scope", None),
        # ... nor does a container in a scope have the units it says it has
        ("0::/system.slice/docker-0123.scope/system.slice/a.service", None),
        ("0::/machine.slice/libpod-0123.scope/container/a.service", None),
        ("0::/docker/0123/a.service", None),
        ("0::/../a.service", None),
        ("0::/system.slice/a.service (deleted)", None),
        ("0::/", None),
        ("12:pids:/system.slice/a.service\n0::/system.slice/b.service", "b.service"),
    ],
)
def test_the_unit_is_what_comes_first_below_the_slices(line: str, unit: str | None) -> None:
    assert unit_in(line + "\n") == unit


@pytest.mark.parametrize("text", ["", "1:pids:/system.slice/a.service\n"])
def test_without_the_unified_hierarchy_nobody_is_anybody(text: str) -> None:
    with pytest.raises(PolicyError, match="no control group"):
        unit_in(text)


@pytest.fixture
def listener(socket_dir: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_dir / "s"))
        listener.listen()
        yield listener


def test_a_living_caller_is_told(listener: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection:
            caller = caller_of(connection)
    assert caller == Caller(uid=os.getuid(), unit=unit_in(Path("/proc/self/cgroup").read_text()))


def ended_caller(listener: socket.socket, *, reaped: bool) -> tuple[socket.socket, int]:
    """A connection whose process has ended; its pid is free where it was reaped."""
    if (child := os.fork()) == 0:
        client = socket.socket(socket.AF_UNIX)
        client.connect(listener.getsockname())
        os._exit(0)
    connection, _ = listener.accept()
    os.waitid(os.P_PID, child, os.WEXITED | (0 if reaped else os.WNOWAIT))
    return connection, child


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("reaped", [False, True])
def test_an_ended_caller_is_nobody(listener: socket.socket, reaped: bool) -> None:
    connection, child = ended_caller(listener, reaped=reaped)
    with connection, pytest.raises(PolicyError, match="it has ended"):
        caller_of(connection)
    if not reaped:
        os.waitpid(child, 0)


@pytest.mark.guarantee("G20")
def test_a_pid_that_another_process_has_by_now_says_nothing(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller ends while its control group is being read, and the file there is already another's."""
    ready, go = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        client = socket.socket(socket.AF_UNIX)
        client.connect(listener.getsockname())
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    connection, _ = listener.accept()
    (tmp_path / str(child)).mkdir()
    (tmp_path / str(child) / "cgroup").write_text("0::/system.slice/privileged.service\n")
    read = callers._cgroups

    def ends_meanwhile(pid: int, proc: Path) -> str:
        os.write(go[1], b"x")
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        return read(pid, proc)

    monkeypatch.setattr(callers, "_cgroups", ends_meanwhile)
    with connection, pytest.raises(PolicyError, match="it has ended"):
        caller_of(connection, tmp_path)
    os.waitpid(child, 0)
    for end in (*ready, *go):
        os.close(end)


def test_no_descriptor_is_left(listener: socket.socket) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            connection, _ = listener.accept()
            with connection:
                caller_of(connection)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_is_alive_until_it_ends() -> None:
    pidfd = os.pidfd_open(os.getpid())
    assert not has_ended(pidfd)
    os.close(pidfd)
