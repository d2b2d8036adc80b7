"""Mirrors sidecars/fs/workers/process.py. Forks from a program of its own: this one may have threads."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecars.fs.workers import process
from sidecars.fs.workers.process import Process, kill_all
from tests import ROOT, need

PROGRAM = """
import json, os, signal, sys
from sidecars.fs.workers.process import fork, make_undumpable
make_undumpable()
ours, theirs = os.pipe()
other = os.open(os.devnull, os.O_RDONLY)
{body}
process = fork(run, keep=[theirs])
os.close(theirs)
{more}
print(os.read(ours, 65536).decode())
print(process.reap())
"""
TELL = """
def run():
    status = dict(line.partition(":\\t")[::2] for line in open("/proc/self/status").read().splitlines())
    found = []
    for fd in range(64):
        try:
            os.fstat(fd); found.append(fd)
        except OSError:
            pass
    os.write(theirs, json.dumps({"fds": found, "mine": theirs, "status": status}).encode())
"""


def ran(body: str, more: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(body=body, more=more)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.guarantee("G11")
def test_a_child_holds_nothing_it_was_not_given() -> None:
    done = ran(TELL)
    told, status = done.stdout.splitlines()
    found = json.loads(told)
    assert found["fds"] == [0, 1, 2, found["mine"]]
    assert {found["status"][f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert found["status"]["NoNewPrivs"] == "1"
    ignored = int(found["status"]["SigIgn"], 16)
    assert all(ignored >> number - 1 & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    assert status == "0"


def test_an_error_of_its_own_is_one_line() -> None:
    done = ran("def run(): raise ValueError('x')")
    assert done.stdout.split() == ["70"]
    assert done.stderr.count("\n") == 1
    assert "ValueError('x')" in done.stderr


def test_a_killed_child_says_by_what() -> None:
    done = ran("import time\ndef run(): time.sleep(60)", "process.kill()")
    assert done.stdout.split() == ["-9"]


def test_it_ends_with_its_parent() -> None:
    need(os.path.exists("/proc/self/status"), "there is no /proc")
    body = "import time\ndef run():\n    os.write(theirs, str(os.getpid()).encode())\n    time.sleep(60)"
    more = "print(os.read(ours, 99).decode(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    pid = int(ran(body, more).stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_capability_is_kept_where_there_is_one() -> None:
    need(os.geteuid() == 0, "capabilities are root's")
    program = (
        "from sidecars.fs.workers.process import keep_one_capability\n"
        "for _ in range(2):\n"
        "    keep_one_capability(21)\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line[:3] == 'Cap'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    inherited, permitted, effective, *_ = (int(word, 16) for word in done.stdout.split())
    assert inherited == 0
    assert permitted == effective
    assert permitted in (0, 1 << 21)


def test_a_child_may_have_any_descriptor() -> None:
    """Also one above 1023, which select(2) would not take."""
    body = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
    body += "taken = [os.dup(other) for _ in range(1100)]\ndef run(): os.write(theirs, b'x')"
    done = ran(body, "assert process.pidfd > 1023")
    assert done.stdout.split() == ["x", "0"], done.stderr


def test_those_that_cannot_be_killed_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def wait(_: int, patience: float) -> bool:
        now[0] += patience
        return False

    monkeypatch.setattr(process, "wait_readable", wait)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Process, "kill", lambda _: None)
    assert not kill_all([Process(1, number) for number in range(16)])
    assert now[0] == 100.0 + process.LAST_CHANCE
