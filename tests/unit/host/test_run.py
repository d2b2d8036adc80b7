"""Mirrors strongroom/host/run.py: real children, because a process group cannot be faked."""

import signal
import time
from pathlib import Path

import pytest

from strongroom.errors import MachineError
from strongroom.host.run import PIPE, quoted, run, spawn


def gone(pid: int) -> bool:
    """True once the process is dead; a killed orphan needs a moment."""
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "pid"


def test_returns_status_and_output() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.status, done.stdout, done.stderr) == (0, b"out\n", b"err\n")


def test_input_reaches_stdin_and_stdin_is_closed_without_it() -> None:
    assert run(["cat"], input=b"a secret").stdout == b"a secret"
    assert run(["cat"]).stdout == b""


@pytest.mark.guarantee("G11")
def test_nothing_of_our_environment_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_TEST_MARK", "leak")
    seen = run(["/usr/bin/env"], env={"EXTRA": "1"}).stdout
    assert b"STRONGROOM_TEST_MARK" not in seen
    assert {line.partition(b"=")[0] for line in seen.split()} >= {b"EXTRA", b"PATH", b"LC_ALL"}


@pytest.mark.guarantee("G11")
def test_repr_and_errors_do_not_repeat_input_or_output() -> None:
    assert "secret" not in repr(run(["cat"], input=b"secret"))
    with pytest.raises(MachineError) as caught:
        run(["sh", "-c", "cat >/dev/null; exit 3"], input=b"secret")
    assert "secret" not in str(caught.value)


def test_failure_is_one_line_with_the_quoted_command_and_its_last_words() -> None:
    with pytest.raises(MachineError) as caught:
        run(["sh", "-c", "echo first >&2; echo 'no such device' >&2; exit 7"])
    line = str(caught.value)
    assert line.endswith("exit status 7, saying: no such device")
    assert line.startswith("sh -c ") and "\n" not in line


def test_failure_may_be_a_value() -> None:
    assert run(["sh", "-c", "exit 7"], check=False).status == 7
    assert run(["sh", "-c", "kill -9 $$"], check=False).status == -signal.SIGKILL


def test_death_by_signal_is_named() -> None:
    with pytest.raises(MachineError, match="ended by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])
    with pytest.raises(MachineError, match="ended by signal 40"):
        run(["sh", "-c", "kill -40 $$"])


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="/nonexistent/tool --flag: no such file or directory"):
        run(["/nonexistent/tool", "--flag"])


def test_timeout_kills_the_whole_group(pid_file: Path) -> None:
    with pytest.raises(MachineError, match=r"no end after 0\.5 s, killed"):
        run(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"], timeout=0.5)
    assert gone(int(pid_file.read_text()))


@pytest.mark.parametrize("argv", ["ls -l", b"ls", []])
def test_a_command_line_is_not_an_argv(argv: list[str]) -> None:
    with pytest.raises(ValueError, match="list of words"):
        run(argv)


def test_no_shell_reads_the_words() -> None:
    assert run(["echo", "$HOME; true"]).stdout == b"$HOME; true\n"


def test_quoted_is_one_line() -> None:
    assert quoted(["a b", "c\nd", Path("/x")]) == "'a b' 'c\\nd' /x"


def test_spawn_ends_the_group_on_leaving(pid_file: Path) -> None:
    with spawn(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; echo ready; wait"], stdout=PIPE) as child:
        assert child.line(5) == b"ready"
        assert child.status is None
        child.check()
    assert gone(child.pid) and gone(int(pid_file.read_text()))


def test_spawn_kills_what_will_not_terminate() -> None:
    with spawn(["sh", "-c", "trap '' TERM; echo ready; sleep 60; sleep 60"], stdout=PIPE, grace=0.2) as child:
        child.line(5)
    assert gone(child.pid)


def test_spawn_ends_the_child_when_the_body_raises() -> None:
    with pytest.raises(KeyError), spawn(["sleep", "60"]) as child:
        raise KeyError
    assert gone(child.pid)


def test_a_child_that_ended_is_noticed() -> None:
    with spawn(["sh", "-c", "exit 4"]) as child:
        assert child.wait(5) == 4
        assert child.status == 4  # asking does not reap: the pid stays ours
        with pytest.raises(MachineError, match="exit status 4, want it running"):
            child.check()


def test_wait_gives_up() -> None:
    with spawn(["sleep", "60"]) as child:
        assert child.wait(0.05) is None


def test_signal_reaches_the_child() -> None:
    script = "trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done"
    with spawn(["sh", "-c", script], stdout=PIPE) as child:
        assert child.line(10) == b"up"
        child.signal(signal.SIGUSR1)
        assert child.line(10) == b"usr1"


def test_line_reports_an_early_end_and_silence() -> None:
    with spawn(["sh", "-c", "exit 5"], stdout=PIPE) as child, pytest.raises(MachineError, match="status 5"):
        child.line(5)
    with spawn(["sleep", "60"], stdout=PIPE) as child, pytest.raises(MachineError, match="no line on stdout"):
        child.line(0.05)


def test_line_is_capped() -> None:
    with (
        spawn(["sh", "-c", "head -c 70000 /dev/zero"], stdout=PIPE) as child,
        pytest.raises(MachineError, match="longer than 65536 bytes"),
    ):
        child.line(10)
