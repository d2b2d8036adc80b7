"""Fixtures that tests of several floors share."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import ROOT, need


@pytest.fixture
def now() -> datetime:
    """A fixed moment: nothing below the machine floor reads a clock."""
    return datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_inherited_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never talks to the service manager that happens to run it."""
    for name in (
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDS",
        "LISTEN_PID",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def socket_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short private directory: the path of a unix socket has at most 107 bytes."""
    directory = tmp_path_factory.mktemp("s")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def fuse_device() -> Path:
    """/dev/fuse, opened by root: what mounting without a helper program takes."""
    device = Path("/dev/fuse")
    need(os.geteuid() == 0, "mounting needs root")
    need(device.exists(), "there is no /dev/fuse")
    return device


@pytest.fixture
def engine_python() -> Path:
    """The interpreter of the engine's environment."""
    python = ROOT / "build/engine/bin/python"
    need((ROOT / "build/engine/.recipe").exists(), "no engine: run ./setup.sh engine")
    return python


@pytest.fixture
def systemd_host() -> None:
    """A machine on which a container with systemd can be booted."""
    need(os.geteuid() == 0, "booting a container needs root")
    need(shutil.which("systemd-nspawn"), "no systemd-nspawn: run ./setup.sh guest")
