"""Several programs at once in a mounted volume: what they read, write, rename and lock."""

import contextlib
import fcntl
import mmap
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.live import Live, rename
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


def test_parallel_readers_of_one_file_and_of_many(top: Path, live: Live) -> None:
    content = pattern(8 * MIB, 7)
    (top / "shared").write_bytes(content)
    for number in range(8):
        (top / f"f{number}").write_bytes(content[: MIB + number])

    def read(number: int) -> bool:
        choice = random.Random(number)
        with (top / "shared").open("rb", buffering=0) as file:
            for _ in range(8):
                offset, size = choice.randrange(len(content)), choice.randrange(300000)
                if os.pread(file.fileno(), size, offset) != content[offset : offset + size]:
                    return False
        at = number % 8
        return (top / f"f{at}").read_bytes() == content[: MIB + at]

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(read, range(128)))
    if live.front == "raw":
        memory = Path(f"/proc/{live.process.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in memory.splitlines() if line.startswith("VmHWM"))
        assert resident < 120 * 1024  # KiB


def test_two_processes_write_parts_of_one_file(top: Path) -> None:
    script = """if True:
        import os, random, sys
        fd, which, choice = os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]), random.Random(int(sys.argv[2]))
        for _ in range(300):
            at = choice.randrange(0, 300000, 100) + which * 50
            os.pwrite(fd, bytes([65 + which]) * 50, at)
            if os.pread(fd, 50, at) != bytes([65 + which]) * 50: sys.exit("lost")
    """
    (top / "file").write_bytes(b"." * 300100)
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", script, str(top / "file"), str(which)])
            )
            for which in (0, 1)
        ]
        assert [process.wait() for process in running] == [0, 0]
    content = (top / "file").read_bytes()
    for at in range(0, 300000, 50):
        assert set(content[at : at + 50]) <= {ord("."), ord("A") if at % 100 == 0 else ord("B")}


def test_readers_beside_a_writer_see_old_or_new(top: Path) -> None:
    """Every block holds one number; direct I/O goes to the daemon each time."""
    blocks = 64
    (top / "file").write_bytes(bytes(blocks * BLOCK))
    stop, wrong = threading.Event(), list[int]()

    def read() -> None:
        room, fd = mmap.mmap(-1, blocks * BLOCK), os.open(top / "file", os.O_RDONLY | os.O_DIRECT)
        while not stop.is_set():
            got = os.preadv(fd, [room], 0)
            wrong.extend(at for at in range(0, got, BLOCK) if len(set(room[at : at + BLOCK])) != 1)
        os.close(fd)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    with (top / "file").open("r+b", buffering=0) as file:
        for number in range(1, 150):
            at = number * 7 % blocks
            os.pwrite(file.fileno(), bytes([number]) * BLOCK * min(8, blocks - at), at * BLOCK)
            if number % 50 == 0:
                os.truncate(top / "file", BLOCK)
                os.truncate(top / "file", blocks * BLOCK)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_names_come_and_go_in_many_threads(top: Path) -> None:
    def churn(number: int) -> None:
        choice, here = random.Random(number), top / f"d{number % 3}"
        here.mkdir(exist_ok=True)
        for turn in range(40):
            mine = here / f"{number}-{turn}"
            mine.write_bytes(b"x" * turn)
            other = top / f"d{choice.randrange(3)}" / f"{number}-{turn}-moved"
            with contextlib.suppress(FileNotFoundError):  # the other directory may not be there yet
                mine.rename(other)
                assert other.read_bytes() == b"x" * turn
            if turn % 2:
                with contextlib.suppress(FileNotFoundError):
                    other.unlink()
            os.listdir(here)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(churn, range(8)))


def test_directories_are_renamed_under_those_who_use_them(top: Path) -> None:
    """Whoever holds a directory open keeps working in it, whatever it is called meanwhile."""
    (top / "one").mkdir()
    (top / "two").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            rename(top / "one", top / "two", 2)

    def work(number: int) -> None:
        fd = os.open(top / "one", os.O_RDONLY | os.O_DIRECTORY)
        for turn in range(100):
            name = f"{number}-{turn}"
            file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=fd)
            os.write(file, name.encode())
            os.close(file)
            file = os.open(name, os.O_RDONLY, dir_fd=fd)
            assert os.read(file, 100) == name.encode()
            os.close(file)
            if turn % 2:
                os.unlink(name, dir_fd=fd)
        os.close(fd)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        stop.set()
        swapper.join()
    assert len(os.listdir(top / "one")) + len(os.listdir(top / "two")) == 200


def test_locks_hold_between_processes(top: Path) -> None:
    (top / "lock").touch()
    script = "import fcntl, sys; fcntl.{0}(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    for kind in ("flock", "lockf"):
        with (top / "lock").open("r+") as file:
            getattr(fcntl, kind)(file, fcntl.LOCK_EX)
            command = [sys.executable, "-c", script.format(kind), str(top / "lock")]
            held = subprocess.run(command, check=False, capture_output=True, text=True)
            assert "BlockingIOError" in held.stderr
        subprocess.run(command, check=True)


def test_fsync(top: Path) -> None:
    (top / ("d" * 200)).mkdir()
    with (top / ("d" * 200) / ("f" * 200)).open("wb") as file:
        file.write(b"safe")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    fd = os.open(top / ("d" * 200), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    os.sync()
    assert (top / ("d" * 200) / ("f" * 200)).read_bytes() == b"safe"
