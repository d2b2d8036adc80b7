"""Mirrors demo/container.py, as far as it needs no container."""

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from demo.container import Container
from strongroom.errors import MachineError
from strongroom.host.run import spawn
from tests import need


def test_a_helper_is_not_taken_for_the_guest() -> None:
    argv = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"]
    with spawn(argv) as child, pytest.raises(MachineError, match="started no PID 1"):
        Container(child).pid(timeout=0.5)


def test_the_first_process_of_a_namespace_is_the_guest() -> None:
    need(os.geteuid() == 0 and shutil.which("unshare"), "a pid namespace needs root")
    with spawn(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as child:
        pid = Container(child).pid()
        deadline = time.monotonic() + 10
        told = b""
        while b"sleep" not in told and time.monotonic() < deadline:
            with suppress(OSError):
                told = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert told == b"sleep\x0060\x00"
        assert pid != child.pid
