"""A state volume as the system serves it: `python -m sidecars.fs` with a writable volume in its credentials."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import ROOT
from tests.fakes.gocryptfs import MASTER_KEY, write_volume
from tests.fakes.live import detach
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device")


@contextmanager
def daemon(at: Path, key: bytes = MASTER_KEY) -> Iterator[subprocess.Popen[str]]:
    """Started, and ready unless it has ended."""
    (at / "credentials").mkdir(exist_ok=True)
    members = {
        "source": str(at / "store"),
        "mount": str(at / "live"),
        "format": "gocryptfs",
        "writable": True,
    }
    (at / "credentials/volume").write_text(json.dumps(members))
    (at / "credentials/model-key").write_bytes(key)
    (at / "notify").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(at / "notify"))
        listener.settimeout(0.2)
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecars.fs"],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "CREDENTIALS_DIRECTORY": str(at / "credentials"),
                "NOTIFY_SOCKET": str(at / "notify"),
                "RUNTIME_DIRECTORY": str(at / "run"),
            },
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        heard, deadline = "", time.monotonic() + 20
        while "READY=1" not in heard and process.poll() is None:
            assert time.monotonic() < deadline
            try:
                heard += listener.recv(4096).decode()
            except TimeoutError:
                continue
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
            detach(at / "live")


@pytest.fixture
def place(socket_dir: Path) -> Path:
    write_volume(socket_dir / "store", contents={"there": pattern(5000, 1)}, links={})
    return socket_dir


def test_it_is_mounted_written_and_unmounted(place: Path) -> None:
    with daemon(place) as process:
        top = place / "live"
        assert (top / "there").read_bytes() == pattern(5000, 1)
        (top / "new").write_bytes(pattern(10_000, 2))
        os.chmod(top / "new", 0o666)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert not os.path.ismount(top)
    with daemon(place):
        assert (place / "live/new").read_bytes() == pattern(10_000, 2)
        assert (place / "live/new").stat().st_mode & 0o777 == 0o666


def test_a_killed_daemon_leaves_a_mount_that_the_next_one_replaces(place: Path) -> None:
    with daemon(place) as process:
        (place / "live/file").write_bytes(b"x")
        process.kill()
        process.wait()
        with pytest.raises(OSError, match="Errno 107"):
            (place / "live/file").read_bytes()
        with daemon(place):
            assert (place / "live/file").read_bytes() == b"x"


def test_another_key_is_refused_in_one_line(place: Path) -> None:
    with daemon(place, key=bytes(32)) as process:
        assert process.wait(20) == 5
        assert process.stderr is not None
        assert process.stderr.read() == "strongroom-fs: volume: no name opens under this key\n"
        assert not os.path.ismount(place / "live")
