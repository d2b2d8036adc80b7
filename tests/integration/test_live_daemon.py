"""A state volume as the system serves it: `python -m sidecars.fs` with a writable volume in its credentials."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import Event
from typing import NoReturn

import pytest

from strongroom.host.run import run
from tests import ROOT
from tests.fakes.gocryptfs import MASTER_KEY, write_volume
from tests.fakes.live import detach
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device")


def until(listener: socket.socket, word: str, process: subprocess.Popen[str]) -> str:
    """What the daemon tells its manager until `word` is in it, or it has ended."""
    heard, deadline = "", time.monotonic() + 30
    while word not in heard and process.poll() is None:
        assert time.monotonic() < deadline, heard
        with suppress(TimeoutError):
            heard += listener.recv(4096).decode() + "\n"
    return heard


@contextmanager
def daemon(
    at: Path, key: bytes = MASTER_KEY, *, store: str = "store"
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """Started, and ready unless it has ended; and where it tells how it is."""
    (at / "credentials").mkdir(exist_ok=True)
    members = {
        "source": str(at / store),
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
        try:
            until(listener, "READY=1", process)
            yield process, listener
        finally:
            process.kill()
            process.communicate()
            detach(at / "live")


@pytest.fixture
def place(socket_dir: Path) -> Path:
    write_volume(socket_dir / "store", contents={"there": pattern(5000, 1)}, links={})
    return socket_dir


def test_it_is_mounted_written_and_unmounted(place: Path) -> None:
    with daemon(place) as (process, _):
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
    with daemon(place) as (process, _):
        (place / "live/file").write_bytes(b"x")
        process.kill()
        process.wait()
        with pytest.raises(OSError, match="Errno 107"):
            (place / "live/file").read_bytes()
        with daemon(place):
            assert (place / "live/file").read_bytes() == b"x"


def test_another_key_is_refused_in_one_line(place: Path) -> None:
    with daemon(place, key=bytes(32)) as (process, _):
        assert process.wait(20) == 5
        assert process.stderr is not None
        assert process.stderr.read() == "strongroom-fs: volume: no name opens under this key\n"
        assert not os.path.ismount(place / "live")


def keep_opening(path: Path, stop: Event) -> list[int]:
    """The devices that files lay on which could be written to at `path`, one for each time."""
    found = []
    while not stop.is_set():
        with suppress(OSError), path.open("ab") as file:
            file.write(b"x")
            found.append(os.fstat(file.fileno()).st_dev)
    return found


def test_nobody_finds_the_bare_directory_while_a_daemon_is_replaced(place: Path) -> None:
    """The dead mount stays below the next one: a program that keeps trying never writes in the clear."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        stop = Event()
        stack.callback(stop.set)
        process, _ = stack.enter_context(daemon(place))
        trying = pool.submit(keep_opening, place / "live/mine", stop)
        for _ in range(4):
            process.kill()
            process.wait()
            process, _ = stack.enter_context(daemon(place))
        stop.set()
        found = trying.result(20)
        assert found
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not os.path.ismount(place / "live")  # nor is any of the dead ones there
        assert (place / "live").stat().st_dev not in found
        assert list((place / "live").iterdir()) == []


def test_another_mount_over_it_is_not_ended(place: Path) -> None:
    with daemon(place) as (process, _):
        run(["mount", "-t", "tmpfs", "tmpfs", place / "live"])
        try:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 8
            assert process.stderr is not None
            assert re.fullmatch(
                r"strongroom-fs: unmount \S+: mount \d+ \(tmpfs, .*\) lies there, want mount \d+ \(fuse.*\)\n",
                process.stderr.read(),
            )
            assert os.path.ismount(place / "live")
        finally:
            run(["umount", place / "live"])
    with daemon(place):
        assert (place / "live/there").read_bytes() == pattern(5000, 1)


def fill(file: FileIO) -> NoReturn:
    while True:
        file.write(bytes(1 << 16))


def test_a_full_store_is_told_once_and_is_no_failure_for_good(place: Path) -> None:
    (place / "small").mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place / "small"])
    try:
        write_volume(place / "small/store", contents={"there": pattern(5000, 1)}, links={})
        with daemon(place, store="small/store") as (process, listener):
            with (place / "live/big").open("wb", buffering=0) as file:
                for _ in range(3):
                    with pytest.raises(OSError, match="No space left"):
                        fill(file)
            said = until(listener, "just now: no space left on device", process)
            assert "STATUS=serving store, writable; the store failed " in said
            os.unlink(place / "live/big")
            (place / "live/next").write_bytes(b"x" * 5000)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert process.stderr.read() == "strongroom-fs: store: no space left on device\n"
    finally:
        run(["umount", place / "small"])
