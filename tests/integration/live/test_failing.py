"""A store that fails, vanishes or is slow."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecars.fs.live.mounted import mounted
from sidecars.fs.live.operations import refuse
from tests.fakes.live import drop, running
from tests.fakes.plain_operations import PlainOperations
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


class Failing(PlainOperations):
    """A plain directory that refuses what it is told to."""

    number = 0
    writes = True
    reads = True

    def read_into(self, path: str, out: memoryview, offset: int, fh: int) -> int:
        if self.number and self.reads:
            refuse(self.number)
        return super().read_into(path, out, offset, fh)

    def write(self, path: str, data: bytes | memoryview, offset: int, fh: int) -> int:
        if self.number and self.writes:
            refuse(self.number)
        return super().write(path, data, offset, fh)


@pytest.fixture
def failing(store: Path, tmp_path: Path) -> Iterator[tuple[Failing, Path]]:
    operations = Failing(store)
    with mounted(operations, tmp_path / "between", print):
        yield operations, tmp_path / "between"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_errors_of_the_store_are_the_answer(
    failing: tuple[Failing, Path], tmp_path: Path, number: int
) -> None:
    """The call that met it fails; what was there is there once the store has recovered."""
    operations, between = failing
    with running("raw", "gocryptfs", between, tmp_path / "live", intents=tmp_path / "intents") as live:
        (live.mount / "file").write_bytes(pattern(100_000, 1))
        drop(live.mount / "file")
        for name in os.listdir(between):
            if "diriv" not in name:
                drop(between / name)
        operations.number = number
        with pytest.raises(OSError, match=r"Errno"):
            (live.mount / "file").read_bytes()
        with (live.mount / "file").open("r+b", buffering=0) as file, pytest.raises(OSError, match=r"Errno"):
            file.write(pattern(5000, 2))
        operations.number = 0
        assert (live.mount / "file").read_bytes() == pattern(100_000, 1)
        live.stop()


def test_a_store_that_vanishes_is_an_error_and_not_a_hang(store: Path, tmp_path: Path) -> None:
    with running("raw", "gocryptfs", store, tmp_path / "live") as live:
        (live.mount / "d").mkdir()
        (live.mount / "d/file").write_bytes(b"x")
        with (live.mount / "d/file").open("r+b", buffering=0) as file:
            shutil.rmtree(store)
            file.write(b"y")  # the object is still open
            with pytest.raises(FileNotFoundError):
                (live.mount / "d/new").write_bytes(b"x")
            with pytest.raises(FileNotFoundError):
                (live.mount / "other").mkdir()
        assert live.process.poll() is None
        live.stop()


def test_a_slow_store_holds_up_nobody_else(failing: tuple[Failing, Path], tmp_path: Path) -> None:
    """More readers wait for it than there are threads, and names are still looked up."""
    operations, between = failing
    hold, begun = threading.Event(), threading.Semaphore(0)
    read = Failing.read_into

    def slow(self: Failing, path: str, out: memoryview, offset: int, fh: int) -> int:
        begun.release()
        hold.wait(20)
        return read(self, path, out, offset, fh)

    with running("raw", "gocryptfs", between, tmp_path / "live", intents=tmp_path / "intents") as live:
        files = [live.mount / f"file{number}" for number in range(6)]
        for file in files:
            file.write_bytes(pattern(100_000, 1))
        left = dict.fromkeys(files, b"")
        for file in (*files, *(between / name for name in os.listdir(between))):
            drop(file)
        operations.read_into = slow.__get__(operations)  # type: ignore[method-assign]
        readers = [
            threading.Thread(target=lambda at=file: left.update({at: at.read_bytes()})) for file in files
        ]
        for reader in readers:
            reader.start()
        try:
            assert begun.acquire(timeout=10)
            (live.mount / "dir").mkdir()
            assert len(os.listdir(live.mount)) == 7
        finally:
            hold.set()
            for reader in readers:
                reader.join()
        assert set(left.values()) == {pattern(100_000, 1)}
        live.stop()
