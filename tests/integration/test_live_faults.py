"""A live volume when things go wrong: killed while it writes, a full store, a store that fails, vanishes or lies."""

import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecars.fs.live.mounted import mounted
from sidecars.fs.live.operations import refuse
from tests.fakes.gocryptfs import fsck, program
from tests.fakes.live import agrees, init, running, snapshot, start
from tests.fakes.plain_operations import PlainOperations
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
FRONTS = ("raw", "portable")
BLOCK = 4096
MIB = 1 << 20


@pytest.fixture(name="real", scope="module")
def _real() -> None:
    program()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


# Killed


WRITER = """if True:
    import os, random, sys
    path, seed = sys.argv[1], int(sys.argv[2])
    choice, blocks = random.Random(seed), 512
    fd = os.open(path, os.O_RDWR)
    number = 0
    while True:
        number = number % 250 + 1
        first = choice.randrange(blocks)
        count = min(choice.choice((1, 2, 64, 256)), blocks - first)
        os.pwrite(fd, bytes([number]) * (count * 4096), first * 4096)
"""


@pytest.mark.parametrize("front", FRONTS)
def test_a_kill_leaves_every_block_old_or_new(store: Path, tmp_path: Path, front: str) -> None:
    """Every block holds one number. A write that was cut is finished by the next daemon, so none is torn."""
    mount, choice, finished = tmp_path / "live", random.Random(1), 0
    for turn in range(12):
        live = start(front, "gocryptfs", store, mount)
        finished += "".join(live.lines).count("finished")
        content = (mount / "file").read_bytes() if turn else bytes(512 * BLOCK)
        assert len(content) == 512 * BLOCK
        assert all(len(set(content[at : at + BLOCK])) == 1 for at in range(0, len(content), BLOCK))
        if not turn:
            (mount / "file").write_bytes(content)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(mount / "file"), str(turn)], stderr=subprocess.DEVNULL
        )
        time.sleep(0.3 + choice.random() / 4)
        live.kill()
        writer.wait()
    with running(front, "gocryptfs", store, mount) as live:
        left = snapshot(mount)
        live.stop()
    agrees(store, left)


APPENDER = """if True:
    import os, sys
    fd, done = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), int(sys.argv[2])
    while True:
        done += os.write(fd, (b"%0999d\\n%0999d\\n" % (done // 1000, done // 1000 + 1))[done % 1000:][:1000])
        print(done, flush=True)
"""


@pytest.mark.parametrize("front", FRONTS)
def test_a_kill_leaves_what_appending_had_written(store: Path, tmp_path: Path, front: str) -> None:
    """What write() said was taken is there, and nothing that was not to be written."""
    mount, choice, taken = tmp_path / "live", random.Random(2), 0
    for _ in range(6):
        live = start(front, "gocryptfs", store, mount)
        log = (mount / "log").read_bytes() if (mount / "log").exists() else b""
        assert len(log) >= taken
        assert log == b"".join(b"%0999d\n" % line for line in range(len(log) // 1000 + 1))[: len(log)]
        writer = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(mount / "log"), str(len(log))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        time.sleep(0.2 + choice.random() / 4)
        live.kill()
        output, _ = writer.communicate()
        taken = int((output.split() or [str(len(log))])[-1])


def test_a_kill_leaves_a_tree_that_can_be_used(store: Path, tmp_path: Path) -> None:
    """Directories and long names are made and removed in steps; a crash between two is healed."""
    mount, choice = tmp_path / "live", random.Random(3)
    script = """if True:
        import os, random, sys
        top, choice = sys.argv[1], random.Random(int(sys.argv[2]))
        names = ["a", "b", "l" * 200, "m" * 255]
        while True:
            path = top + "/" + "/".join(choice.choice(names) for _ in range(choice.randrange(1, 4)))
            other = top + "/" + choice.choice(names)
            try:
                choice.choice((os.mkdir, os.rmdir, lambda p: os.rename(p, other), lambda p: open(p, "w").close(),
                               os.unlink))(path)
            except OSError as error:
                if error.errno == 107: raise
    """
    for turn in range(8):
        live = start("raw", "gocryptfs", store, mount)
        before = snapshot(mount)
        for path in before:
            assert os.lstat(mount / path)
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(mount), str(turn)], stderr=subprocess.DEVNULL
        )
        time.sleep(0.2 + choice.random() / 4)
        live.process.kill()
        live.process.wait()
        writer.kill()  # before the mount goes: it would go on in the directory below
        writer.wait()
        live.kill()
    with running("raw", "gocryptfs", store, mount) as live:
        left = snapshot(mount)
        live.stop()
    agrees(store, left)


def test_one_daemon_writes_a_volume(store: Path, tmp_path: Path) -> None:
    with running("raw", "gocryptfs", store, tmp_path / "live"):
        command = [
            sys.executable,
            "-m",
            "tests.fakes.live_daemon",
            "raw",
            "gocryptfs",
            str(store),
            str(tmp_path / "b"),
        ]
        second = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "held by another daemon, want one writer" in second.stderr


# Full


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A store of three megabytes."""
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", tmp_path / "small"], check=True)
    try:
        init_at(tmp_path / "small/store", tmp_path)
        yield tmp_path / "small/store"
    finally:
        subprocess.run(["umount", "-l", tmp_path / "small"], check=True)


def init_at(store: Path, beside: Path) -> None:
    init(beside / "made")
    shutil.copytree(beside / "made", store)


def full() -> contextlib.AbstractContextManager[object]:
    return pytest.raises(OSError, match=rf"Errno {errno.ENOSPC}")


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("size", [1000, 4096, 10000, MIB])
def test_a_full_store_takes_whole_blocks_or_nothing(
    small: Path, tmp_path: Path, front: str, size: int
) -> None:
    """Whatever write() said was taken is there, nothing more, and both programs can read it."""
    intents = tmp_path / "intents"
    with running(front, "gocryptfs", small, tmp_path / "live", intents=intents) as live:
        top, want = live.mount, b""
        (top / "kept").write_bytes(pattern(100_000, 1))
        with (top / "file").open("wb", buffering=0) as file:
            with full():
                while True:
                    piece = pattern(size, len(want))
                    want += piece[: file.write(piece)]
            assert os.fstat(file.fileno()).st_size == len(want)
        assert len(want) > 2 * MIB
        assert (top / "file").read_bytes() == want
        with (top / "kept").open("r+b", buffering=0) as file:  # what has its room can be changed
            file.write(pattern(50_000, 2))
        with full():
            (top / "more").write_bytes(bytes(2 * MIB))
        (top / "more").unlink()
        os.truncate(top / "file", MIB)
        (top / "more").write_bytes(pattern(300_000, 3))
        left = snapshot(top)
        live.stop()
    checked = fsck_at(small, tmp_path)
    assert checked.status == 0, checked.stdout + checked.stderr
    with running(front, "gocryptfs", small, tmp_path / "live", intents=intents) as live:
        assert snapshot(live.mount) == left
        assert (live.mount / "kept").read_bytes() == pattern(50_000, 2) + pattern(100_000, 1)[50_000:]


def fsck_at(store: Path, beside: Path):  # type: ignore[no-untyped-def]
    shutil.copytree(store, beside / "copy")
    return fsck(beside / "copy")


def test_names_that_find_no_room_leave_nothing(small: Path, tmp_path: Path) -> None:
    with running("raw", "gocryptfs", small, tmp_path / "live", intents=tmp_path / "intents") as live:
        with (live.mount / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        made = 0
        with full():
            while True:
                (live.mount / f"{made:03}{'d' * 200}").mkdir()
                made += 1
        assert len(os.listdir(live.mount)) == made + 1
        live.stop()
    assert fsck_at(small, tmp_path).status == 0


# A store that fails


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


def drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


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


# A store that lies


def stored(store: Path) -> Path:
    (found,) = (path for path in store.iterdir() if not path.name.startswith("gocryptfs."))
    return found


@pytest.mark.parametrize("front", FRONTS)
def test_a_changed_block_is_refused_and_its_neighbours_are_not(
    store: Path, tmp_path: Path, front: str
) -> None:
    with running(front, "gocryptfs", store, tmp_path / "live") as live:
        (live.mount / "file").write_bytes(pattern(10 * BLOCK, 1))
        drop(live.mount / "file")
        with stored(store).open("r+b") as file:
            file.seek(18 + 4 * 4128 + 1000)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        fd = os.open(live.mount / "file", os.O_RDWR)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        try:
            for block in range(10):
                if block == 4:
                    with pytest.raises(OSError, match=rf"Errno {errno.EIO}"):
                        os.pread(fd, BLOCK, block * BLOCK)
                else:
                    assert (
                        os.pread(fd, BLOCK, block * BLOCK) == pattern(10 * BLOCK, 1)[block * BLOCK :][:BLOCK]
                    )
            with pytest.raises(OSError, match=rf"Errno {errno.EIO}"):
                os.pwrite(fd, b"x", 4 * BLOCK + 5)  # the rest of the block would be made up
            os.pwrite(fd, bytes(BLOCK), 4 * BLOCK)  # a whole block replaces it
            assert os.pread(fd, BLOCK, 4 * BLOCK) == bytes(BLOCK)
        finally:
            os.close(fd)
        inode = stored(store).stat().st_ino
        assert f"inode {inode}: block 4: tag does not verify; read refused\n" in live.stop()


def test_what_is_put_into_the_store_is_not_followed(store: Path, tmp_path: Path) -> None:
    """A link, a pipe or a device in the place of a file or directory opens nothing outside."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"not ours")
    (tmp_path / "outside/file").chmod(0o600)
    with running("raw", "gocryptfs", store, tmp_path / "live") as live:
        (live.mount / "file").write_bytes(b"x")
        at = stored(store)
        at.unlink()
        at.symlink_to(tmp_path / "outside/file")
        for act in (
            (live.mount / "file").read_bytes,
            lambda: (live.mount / "file").write_bytes(b"y"),
            lambda: os.chmod(live.mount / "file", 0o777),
            lambda: os.truncate(live.mount / "file", 0),
        ):
            with pytest.raises(OSError, match="Errno"):
                act()
        at.unlink()
        os.mkfifo(at)
        with pytest.raises(OSError, match="Errno"):
            (live.mount / "file").read_bytes()
        live.stop()
    assert (tmp_path / "outside/file").read_bytes() == b"not ours"
    assert (tmp_path / "outside/file").stat().st_mode & 0o777 == 0o600


def test_another_key_is_refused(store: Path, tmp_path: Path) -> None:
    with running("raw", "gocryptfs", store, tmp_path / "live") as live:
        (live.mount / "file").write_bytes(b"x")
        live.stop()
    init(tmp_path / "other")
    shutil.copy(tmp_path / "other/gocryptfs.conf", store / "gocryptfs.conf")
    command = [
        sys.executable,
        "-m",
        "tests.fakes.live_daemon",
        "raw",
        "gocryptfs",
        str(store),
        str(tmp_path / "live"),
    ]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "no name opens under this key" in refused.stderr


def test_unmounting_works_while_files_are_open(store: Path, tmp_path: Path) -> None:
    with running("raw", "gocryptfs", store, tmp_path / "live") as live:
        fd = os.open(live.mount / "file", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"x")
        live.stop()
        assert not os.path.ismount(live.mount)
        os.close(fd)
