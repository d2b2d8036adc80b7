"""A real mount at its limits: more objects than open files, many readers at once, a store that hangs."""

import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.host.run import run, spawn
from tests import ROOT
from tests.fakes.gocryptfs import MASTER_KEY, write_volume
from tests.fakes.mounts import Daemon, forget_pages, mounted
from tests.fakes.sealed import SealedFixture, pattern, seal

pytestmark = pytest.mark.usefixtures("fuse_device")

FEW = 64  # files that a process may open
MANY = 150
SMALL = 64 << 10
MIB = 1 << 20
WORKER = 48 * MIB  # bytes, the most that a worker may ever have resident
# The daemon with one thing changed: how many files it may open; how soon its status tells of a store that hangs.
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}))"
IMPATIENT = "from sidecars.fs import __main__; __main__._PATIENCE = 0.5"


def daemon_with(change: str) -> dict[str, object]:
    return {
        "arguments": ("-c", f"{change}\nimport sys; from sidecars.fs.__main__ import main; sys.exit(main())")
    }


def peak(pid: int) -> int:
    """Most bytes that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("form", ["sealed", "gocryptfs"])
def test_more_objects_than_open_files(tmp_path: Path, place: Path, form: str) -> None:
    contents = {f"file-{number:03}": pattern(SMALL + number, number) for number in range(MANY)}
    if form == "sealed":
        (tmp_path / "source").mkdir()
        for name, content in contents.items():
            (tmp_path / "source" / name).write_bytes(content)
        root = seal(tmp_path / "source", tmp_path / "sealed")
        fixture, members = SealedFixture(tmp_path / "sealed", root, 1, contents, {}), {}
    else:
        written = write_volume(tmp_path / "cipher", contents=contents, links={})
        fixture = SealedFixture(written.path, b"", 1, contents, {})
        members = {"root": None, "epoch": None, "format": "gocryptfs", "key": MASTER_KEY}
    with mounted(fixture, place, **members, **daemon_with(LIMITED)) as daemon:
        for _ in range(2):
            for name, content in contents.items():
                assert (daemon.mount / name).read_bytes() == content
                forget_pages(daemon.mount / name)
        assert all(open_files(pid) < FEW for pid in (daemon.pid, *daemon.children()))
        assert daemon.stop() == (0, "")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SealedFixture:
    """One file of 64 MiB."""
    at = tmp_path_factory.mktemp("large")
    (at / "source").mkdir()
    content = pattern(64 * MIB, 7)
    (at / "source" / "model.bin").write_bytes(content)
    (at / "source" / "config.json").write_bytes(b"{}")
    root = seal(at / "source", at / "sealed", chunk_log2=17)
    return SealedFixture(at / "sealed", root, 1, {"model.bin": content}, {})


def test_the_memory_of_64_readers_is_bounded(large: SealedFixture, place: Path) -> None:
    content = large.contents["model.bin"]

    def read(number: int) -> None:
        fd = os.open(daemon.mount / "model.bin", os.O_RDONLY | (os.O_DIRECT if number % 2 else 0))
        with mmap.mmap(-1, 8 * MIB) as buffer:
            for step in range(4):
                offset = (number * 7 + step * 13) % 56 * MIB
                count = os.preadv(fd, [buffer], offset)
                assert buffer[:count] == content[offset : offset + count]
        os.close(fd)

    with mounted(large, place, mode="stream", workers=2) as daemon, ThreadPoolExecutor(64) as pool:
        for _ in range(2):
            assert list(pool.map(read, range(64))) == [None] * 64
            forget_pages(daemon.mount / "model.bin")
        processes = [daemon.pid, *daemon.children()]
        assert len(processes) == 3
        assert max(map(peak, processes)) <= WORKER
        assert daemon.stop() == (0, "")


@contextmanager
def stalling(sealed: SealedFixture, at: Path) -> Iterator[tuple[SealedFixture, Path]]:
    """The same tree on a store that hangs while the file that is given exists."""
    point = at / "store"
    point.mkdir()
    with spawn([sys.executable, "-m", "tests.fakes.stalling", sealed.path, point], cwd=ROOT) as child:
        try:
            until(lambda: os.path.ismount(point))
            yield replace(sealed, path=point), sealed.path.with_name(f"{sealed.path.name}.hang")
        finally:
            child.check()
            run(["umount", "-l", point], check=False)


def until(held: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_store_that_hangs(large: SealedFixture, place: Path) -> None:
    """Reads wait, and are answered when it comes back; meanwhile names and attributes are, and the status says so."""
    with stalling(large, place) as (store, hang), ThreadPoolExecutor(8) as pool:
        try:
            with mounted(store, place, mode="stream", workers=2, **daemon_with(IMPATIENT)) as daemon:
                hang.touch()
                waiting = [pool.submit((daemon.mount / "model.bin").read_bytes) for _ in range(4)]
                daemon.hear(lambda: any("has not answered" in said for said in daemon.statuses()))
                answered = pool.submit(look_around, daemon)
                assert answered.result(20) == (["config.json", "model.bin"], 64 * MIB, b"{}")
                assert not any(read.done() for read in waiting)
                hang.unlink()
                assert {read.result(30) == large.contents["model.bin"] for read in waiting} == {True}
                daemon.hear(lambda: "has not answered" not in daemon.statuses()[-1])
                assert daemon.stop() == (0, "")
        finally:
            hang.unlink(missing_ok=True)


def look_around(daemon: Daemon) -> tuple[list[str], int, bytes]:
    names = sorted(os.listdir(daemon.mount))
    return names, (daemon.mount / "model.bin").stat().st_size, (daemon.mount / "config.json").read_bytes()


def test_unmounting_from_a_store_that_hangs(large: SealedFixture, place: Path) -> None:
    """The daemon ends and its mount is gone. A worker inside the store's call, and its readers, end with that call."""
    with stalling(large, place) as (store, hang), ThreadPoolExecutor(1) as pool:
        try:
            with mounted(store, place, mode="stream", workers=2) as daemon:
                hang.touch()
                waiting = pool.submit((daemon.mount / "model.bin").read_bytes)
                time.sleep(0.5)
                os.kill(daemon.pid, signal.SIGTERM)
                assert daemon.running.wait(20) == 0
                assert not os.path.ismount(daemon.mount)
                assert not waiting.done()
                hang.unlink()
                assert daemon.wait()[0] == 0  # the last of its processes, and what its manager kept
                assert not daemon.kept
                assert isinstance(waiting.exception(20), OSError)
        finally:
            hang.unlink(missing_ok=True)
