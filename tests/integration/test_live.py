"""Volumes mounted to be read and written, through both front ends; the real gocryptfs reads each after its test."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.gocryptfs import KINDS, mounted, program
from tests.fakes.live import Live, agrees, init, running, snapshot
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
FRONTS = ("raw", "portable")
SERVED = (("raw", "gocryptfs"), ("portable", "gocryptfs"), ("raw", "shared"))
BLOCK = 4096
MIB = 1 << 20


@pytest.fixture(name="real", scope="module")
def _real() -> None:
    program()


@pytest.fixture(params=SERVED, ids="-".join)
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    """A new volume; whatever the test leaves in it, the real program has to agree with."""
    store = tmp_path / "store"
    init(store)
    front, kind = request.param
    with running(front, kind, store, tmp_path / "live") as daemon:
        yield daemon
        left = snapshot(daemon.mount)
        assert daemon.stop() == "ready\n"
    agrees(store, left)


@pytest.fixture
def top(live: Live) -> Path:
    return live.mount


def refused(number: int) -> contextlib.AbstractContextManager[object]:
    return pytest.raises(OSError, match=rf"^\[Errno {number}\]")


# What a file holds


def test_what_was_written_is_read(top: Path) -> None:
    for size in (0, 1, 4095, 4096, 4097, 8192, 3 * MIB + 17):
        (top / f"{size}").write_bytes(pattern(size, 1))
        assert (top / f"{size}").stat().st_size == size
        assert (top / f"{size}").read_bytes() == pattern(size, 1)


def test_a_change_inside_a_file_leaves_the_rest(top: Path) -> None:
    want = bytearray(pattern(5 * BLOCK + 100, 2))
    (top / "file").write_bytes(want)
    with (top / "file").open("r+b", buffering=0) as file:
        for offset, size in [(0, 1), (4095, 2), (4096, 4096), (8000, 9000), (5 * BLOCK + 99, 1), (10, 20000)]:
            file.seek(offset)
            file.write(pattern(size, offset))
            want[offset : offset + size] = pattern(size, offset)
            assert (top / "file").read_bytes() == want


def test_appending(top: Path) -> None:
    want = b""
    for size in (1, 4094, 1, 1, 5000, 4096, 7):
        with (top / "log").open("ab", buffering=0) as file:
            file.write(pattern(size, size))
        want += pattern(size, size)
        assert (top / "log").read_bytes() == want


def test_appends_of_two_processes_do_not_overwrite_each_other(top: Path) -> None:
    script = """if True:
        import sys
        for _ in range(200):
            with open(sys.argv[1], "ab", buffering=0) as log: log.write(sys.argv[2].encode() * 99 + b"\\n")
    """
    log = str(top / "log")
    with contextlib.ExitStack() as stack:
        for letter in "ab":
            stack.enter_context(subprocess.Popen([sys.executable, "-c", script, log, letter]))
    lines = (top / "log").read_bytes().splitlines()
    assert sorted(lines) == [b"a" * 99] * 200 + [b"b" * 99] * 200


def test_truncating(top: Path) -> None:
    for before in (0, 1, 4096, 10000):
        for after in (0, 1, 4095, 4096, 4097, 9999, 10000, 20000, 5 * MIB, 3 * MIB + 1):
            file = top / f"{before}-{after}"
            file.write_bytes(pattern(before, 3))
            os.truncate(file, after)
            assert file.stat().st_size == after
            assert file.read_bytes() == (pattern(before, 3) + bytes(after))[:after]


def test_a_hole_reads_as_zeros_and_takes_no_room(top: Path) -> None:
    with (top / "sparse").open("wb", buffering=0) as file:
        file.seek(64 * MIB + 5)
        file.write(b"end")
        file.seek(32 * MIB)
        file.write(b"middle")
    status = (top / "sparse").stat()
    assert status.st_size == 64 * MIB + 8
    assert status.st_blocks < 100
    with (top / "sparse").open("rb") as file:
        assert os.pread(file.fileno(), 10, 32 * MIB - 2) == b"\0\0middle\0\0"
        # A block beside data in one page of the store counts as data.
        assert 32 * MIB - BLOCK <= os.lseek(file.fileno(), 2 * BLOCK, os.SEEK_DATA) <= 32 * MIB
        assert 32 * MIB + BLOCK <= os.lseek(file.fileno(), 32 * MIB, os.SEEK_HOLE) <= 32 * MIB + 2 * BLOCK
        assert 64 * MIB - BLOCK <= os.lseek(file.fileno(), 33 * MIB, os.SEEK_DATA) <= 64 * MIB
        with refused(errno.ENXIO):
            os.lseek(file.fileno(), 64 * MIB + 8, os.SEEK_DATA)


def test_fallocate(top: Path) -> None:
    (top / "file").write_bytes(pattern(100000, 4))
    want = bytearray(pattern(100000, 4))
    with (top / "file").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 90000, 30001)
        want += bytes(20001)
        assert (top / "file").read_bytes() == want
        for mode, offset, length in [
            (3, 4000, 40000),
            (3, 4096, 8192),
            (3, 119000, 4096),
            (17, 50000, 10),
            (16, 120000, 50),
        ]:
            subprocess.run(
                [
                    "fallocate",
                    *{3: ["-p"], 17: ["-z", "-n"], 16: ["-z"]}[mode],
                    "-o",
                    str(offset),
                    "-l",
                    str(length),
                    str(top / "file"),
                ],
                check=True,
            )
            if mode == 16:
                want.extend(bytes(max(0, offset + length - len(want))))
            end = min(offset + length, len(want))
            want[offset:end] = bytes(end - offset)
            assert (top / "file").read_bytes() == want


def test_a_shared_map_is_the_file(top: Path) -> None:
    (top / "file").write_bytes(bytes(3 * BLOCK + 5))
    with (top / "file").open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 3 * BLOCK + 5)
        shared[10:15] = b"first"
        shared[BLOCK - 2 : BLOCK + 2] = b"edge"
        shared[3 * BLOCK + 3 :] = b"zz"
        shared.flush()
        assert os.pread(file.fileno(), 5, 10) == b"first"
        os.pwrite(file.fileno(), b"second", 10)
        assert shared[10:16] == b"second"
        shared[0] = 0x41
        shared.close()
    want = bytearray(3 * BLOCK + 5)
    want[0], want[10:16], want[BLOCK - 2 : BLOCK + 2], want[3 * BLOCK + 3 :] = 0x41, b"second", b"edge", b"zz"
    assert (top / "file").read_bytes() == want


def test_a_private_map_changes_nothing(top: Path) -> None:
    (top / "file").write_bytes(bytes(BLOCK))
    with (
        (top / "file").open("rb") as file,
        mmap.mmap(file.fileno(), BLOCK, access=mmap.ACCESS_COPY) as private,
    ):
        private[:4] = b"mine"
        assert private[:4] == b"mine"
    assert (top / "file").read_bytes() == bytes(BLOCK)


def test_direct_reads_and_writes(top: Path) -> None:
    (top / "file").write_bytes(pattern(MIB + 100, 5))
    fd = os.open(top / "file", os.O_RDWR | os.O_DIRECT)
    try:
        room = mmap.mmap(-1, 2 * MIB)  # aligned, as direct I/O wants it
        assert os.preadv(fd, [room], 0) == MIB + 100
        assert room[: MIB + 100] == pattern(MIB + 100, 5)
        room[: 2 * BLOCK] = pattern(2 * BLOCK, 6)
        assert os.pwritev(fd, [memoryview(room)[: 2 * BLOCK]], BLOCK) == 2 * BLOCK
    finally:
        os.close(fd)
    want = bytearray(pattern(MIB + 100, 5))
    want[BLOCK : 3 * BLOCK] = pattern(2 * BLOCK, 6)
    assert (top / "file").read_bytes() == want


def test_beyond_four_gigabytes(top: Path) -> None:
    with (top / "large").open("w+b", buffering=0) as file:
        file.seek((1 << 32) + 10)
        file.write(b"here")
        file.seek((1 << 32) - 1)
        assert file.read(20) == b"\0" * 11 + b"here"
    os.truncate(top / "large", 10)


# Names


def test_a_tree_of_names(top: Path) -> None:
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/ünï cødé").write_bytes(b"x")
    (top / os.fsdecode(b"not \xff utf-8")).write_bytes(b"y")
    assert sorted(os.listdir(os.fsencode(top))) == [b"a", b"not \xff utf-8"]
    assert os.listdir(top / "a/b/c") == ["ünï cødé"]
    with refused(errno.ENOTEMPTY):
        (top / "a/b").rmdir()
    with refused(errno.EEXIST):
        (top / "a").mkdir()
    with refused(errno.ENOENT):
        (top / "a/missing/x").write_bytes(b"")
    with refused(errno.ENOTDIR):
        (top / "a/b/c/ünï cødé/x").stat()
    (top / "a/b/c/ünï cødé").unlink()
    (top / "a/b/c").rmdir()
    (top / "a/b/c").mkdir()


@pytest.mark.parametrize("length", [175, 176, 255])
def test_long_names(top: Path, length: int) -> None:
    first, second = top / ("f" * length), top / ("d" * length)
    first.write_bytes(b"long")
    second.mkdir()
    first.rename(second / ("g" * length))
    os.link(second / ("g" * length), first)
    (top / ("l" * length)).symlink_to("f" * length)
    assert sorted(os.listdir(top)) == ["d" * length, "f" * length, "l" * length]
    assert (top / ("l" * length)).read_bytes() == b"long"
    (second / ("g" * length)).rename(second / "short")
    (second / "short").unlink()
    second.rmdir()
    first.rename(top / "short")
    assert sorted(os.listdir(top)) == ["l" * length, "short"]
    with refused(errno.ENAMETOOLONG):
        (top / ("n" * 256)).write_bytes(b"")


def test_listing_many_names(top: Path) -> None:
    names = {f"file {number:05}" for number in range(3000)}
    for name in names:
        os.close(os.open(top / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(top)) == names
    with os.scandir(top) as entries:
        assert {entry.name for entry in entries if entry.stat().st_size == 0} == names
    for name in names:
        os.unlink(top / name)
    assert os.listdir(top) == []


def test_listing_in_many_threads(top: Path) -> None:
    names = {f"{number}" for number in range(700)}
    for name in names:
        (top / name).touch()

    def look(number: int) -> bool:
        if number % 4 == 0:
            (top / "new").mkdir()  # so that the kernel asks again
            (top / "new").rmdir()
        return set(os.listdir(top)) - {"new"} == names

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, [1, 2, 3] * 20))
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(look, [0, *[1, 2, 3, 5] * 10]))


def test_removing_names_while_listing_them(top: Path) -> None:
    for number in range(500):
        (top / f"f{number}").touch()
    seen = []
    with os.scandir(top) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert len(seen) == len(set(seen)) == 500
    assert os.listdir(top) == []


def test_renaming(top: Path) -> None:
    (top / "a").write_bytes(b"a")
    (top / "b").write_bytes(b"b")
    (top / "a").rename(top / "b")
    assert os.listdir(top) == ["b"]
    assert (top / "b").read_bytes() == b"a"
    (top / "d1").mkdir()
    (top / "d1/in").write_bytes(b"in")
    (top / "d2").mkdir()
    with refused(errno.ENOTEMPTY):
        (top / "d2").rename(top / "d1")
    (top / "d1").rename(top / "d2")
    assert (top / "d2/in").read_bytes() == b"in"
    with refused(errno.EISDIR):
        (top / "b").rename(top / "d2")
    with refused(errno.ENOTDIR):
        (top / "d2").rename(top / "b")
    with refused(errno.EINVAL):
        (top / "d2").rename(top / "d2/below")


def test_renaming_without_replacing_and_exchanging(top: Path) -> None:
    (top / "a").write_bytes(b"a")
    (top / "b").mkdir()
    (top / "b/x").write_bytes(b"x")
    rename(top / "a", top / "c", 1)
    with refused(errno.EEXIST):
        rename(top / "c", top / "b", 1)
    rename(top / "c", top / "b", 2)
    assert (top / "b").read_bytes() == b"a"
    assert (top / "c/x").read_bytes() == b"x"
    with refused(errno.EINVAL):
        rename(top / "b", top / "n", 4)


def rename(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_a_file_that_lost_its_name_stays_open(top: Path) -> None:
    with (top / "gone").open("w+b", buffering=0) as file:
        file.write(b"before")
        (top / "gone").unlink()
        with refused(errno.ENOENT):
            (top / "gone").stat()
        (top / "gone").write_bytes(b"another")
        file.write(b" after")
        assert os.pread(file.fileno(), 100, 0) == b"before after"
        status = os.fstat(file.fileno())
        assert status.st_size == 12
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), 3)
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 100, 0) == b"bef"
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert (top / "gone").read_bytes() == b"another"


def test_a_file_that_was_replaced_stays_open(top: Path) -> None:
    (top / "config").write_bytes(b"old")
    with (top / "config").open("r+b", buffering=0) as file:
        (top / "new").write_bytes(b"new")
        (top / "new").rename(top / "config")
        assert file.read() == b"old"
        file.write(b"er")
        assert os.pread(file.fileno(), 10, 0) == b"older"
    assert (top / "config").read_bytes() == b"new"


def test_files_below_a_renamed_directory_stay_usable(top: Path) -> None:
    (top / "d/e").mkdir(parents=True)
    fd = os.open(top / "d/e", os.O_RDONLY)
    with (top / "d/e/f").open("w+b", buffering=0) as file:
        (top / "d").rename(top / "x")
        (top / "d").mkdir()
        (top / "d/e").mkdir()
        file.write(b"content")
        made = os.open("g", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.close(made)
        os.close(fd)
    assert (top / "x/e/f").read_bytes() == b"content"
    assert sorted(os.listdir(top / "x/e")) == ["f", "g"]
    assert os.listdir(top / "d/e") == []


def test_links(top: Path) -> None:
    (top / "a").write_bytes(b"one")
    (top / "d").mkdir()
    os.link(top / "a", top / "d/b")
    assert (top / "a").stat().st_nlink == 2
    assert (top / "a").stat().st_ino == (top / "d/b").stat().st_ino
    (top / "d/b").write_bytes(b"both")
    assert (top / "a").read_bytes() == b"both"
    (top / "a").unlink()
    assert (top / "d/b").stat().st_nlink == 1
    assert (top / "d/b").read_bytes() == b"both"
    with refused(errno.EPERM):
        os.link(top / "d", top / "e")


def test_symbolic_links(top: Path) -> None:
    for name, target in {"up": "../x", "dangling": "nowhere", "abs": "/etc", "long": "y" * 2000}.items():
        (top / name).symlink_to(target)
        assert os.readlink(top / name) == target
        assert (top / name).lstat().st_size == len(target)
    os.utime(top / "up", ns=(10**9, 2 * 10**9), follow_symlinks=False)
    assert (top / "up").lstat().st_mtime_ns == 2 * 10**9
    with refused(errno.ENOENT):
        (top / "dangling").read_bytes()


# Attributes


def test_modes_owners_and_times(top: Path) -> None:
    (top / "f").write_bytes(b"x")
    os.chmod(top / "f", 0o4751)
    assert stat.S_IMODE((top / "f").stat().st_mode) == 0o4751
    os.chown(top / "f", 1000, 1001)
    status = (top / "f").stat()
    assert (status.st_uid, status.st_gid) == (1000, 1001)
    os.chown(top / "f", -1, 5)
    assert (top / "f").stat().st_uid == 1000
    os.utime(top / "f", ns=(123456789012345678, 987654321098765432))
    status = (top / "f").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (123456789012345678, 987654321098765432)
    subprocess.run(["touch", "-m", "-d", "@5", str(top / "f")], check=True)
    status = (top / "f").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (123456789012345678, 5 * 10**9)
    subprocess.run(["touch", "-a", str(top / "f")], check=True)
    assert (top / "f").stat().st_mtime_ns == 5 * 10**9
    os.mkdir(top / "d", 0o2770)
    os.chmod(top / "d", 0o2770)
    os.chmod(top, 0o755)


def test_writing_takes_setuid_away(top: Path) -> None:
    (top / "f").write_bytes(b"x")
    script = "import os, sys; os.chdir(sys.argv[1]); os.setuid(1000); open('f', sys.argv[2]).write('y')"
    os.chmod(top, 0o777)
    for mode in ("r+", "w"):
        os.chmod(top / "f", 0o6777)
        subprocess.run([sys.executable, "-c", script, str(top), mode], check=True)
        assert stat.S_IMODE((top / "f").stat().st_mode) == 0o777, mode


def test_what_a_user_makes_is_the_users(top: Path) -> None:
    os.chmod(top, 0o777)
    os.mkdir(top / "group")
    os.chown(top / "group", 0, 77)
    os.chmod(top / "group", 0o2777)
    script = """if True:
        import os, sys
        os.chdir(sys.argv[1]); os.setgid(1001); os.setuid(1000); os.umask(0o027)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o666)); os.mkdir("dir"); os.symlink("x", "link")
        os.mkfifo("pipe"); os.close(os.open("group/file", os.O_CREAT | os.O_WRONLY)); os.mkdir("group/dir")
        try: os.chown("file", 0, 0)
        except PermissionError: pass
        else: sys.exit("chown")
    """
    subprocess.run([sys.executable, "-c", script, str(top)], check=True)
    for name, mode in {"file": 0o640, "dir": 0o750, "link": 0o777, "pipe": 0o640}.items():
        status = (top / name).lstat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, mode), name
    assert (top / "group/file").stat().st_gid == 77
    assert (top / "group/dir").stat().st_gid == 77
    assert (top / "group/dir").stat().st_mode & stat.S_ISGID
    os.unlink(top / "pipe")  # the real program's own check does not like to see them


def test_extended_attributes(top: Path) -> None:
    (top / "f").write_bytes(b"x")
    os.setxattr(top / "f", "user.one", b"1")
    os.setxattr(top / "f", "user.empty", b"")
    os.setxattr(top / "f", "user.long", pattern(2000, 1))
    assert sorted(os.listxattr(top / "f")) == ["user.empty", "user.long", "user.one"]
    assert os.getxattr(top / "f", "user.long") == pattern(2000, 1)
    assert os.getxattr(top / "f", "user.empty") == b""
    with refused(errno.EEXIST):
        os.setxattr(top / "f", "user.one", b"2", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(top / "f", "user.none", b"2", os.XATTR_REPLACE)
    with refused(errno.ENODATA):
        os.getxattr(top / "f", "user.none")
    with refused(errno.EOPNOTSUPP):
        os.setxattr(top / "f", "trusted.one", b"1")
    os.removexattr(top / "f", "user.one")
    assert sorted(os.listxattr(top / "f")) == ["user.empty", "user.long"]


def test_the_room_left_is_that_of_the_store(top: Path, live: Live) -> None:
    ours, stores = os.statvfs(top), os.statvfs(live.store)
    assert (ours.f_blocks * ours.f_frsize, ours.f_namemax) == (stores.f_blocks * stores.f_frsize, 255)


# Several at once


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


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("kind", [kind for kind, (options, _, _) in KINDS.items() if options is not None])
def test_every_kind_of_volume(tmp_path: Path, front: str, kind: str) -> None:
    """Written by us and read by the real program, changed by it and read by us."""
    options = KINDS[kind][0]
    assert options is not None
    store, mount = tmp_path / "store", tmp_path / "live"
    init(store, *options)
    with running(front, "gocryptfs", store, mount) as daemon:
        furnish(mount)
        left = snapshot(mount)
        assert daemon.stop() == "ready\n"
    agrees(store, left)
    with mounted(store) as theirs:
        (theirs / "d/file").write_bytes(pattern(12345, 9))
        os.rename(theirs / "other", theirs / "d/third")
        os.truncate(theirs / "big", MIB)
        (theirs / "new").mkdir()
        (theirs / "new/file").write_bytes(pattern(5000, 10))
        left = snapshot(theirs)
    with running(front, "gocryptfs", store, mount) as daemon:
        assert snapshot(mount) == left
        (mount / "new/file").write_bytes(b"")
        (mount / "new/file").unlink()
        (mount / "new").rmdir()


def furnish(top: Path) -> None:
    (top / "d/e").mkdir(parents=True)
    (top / "d/file").write_bytes(pattern(5000, 1))
    (top / "other").write_bytes(b"")
    (top / "big").write_bytes(pattern(3 * MIB + 5, 2))
    (top / ("n" * 120)).write_bytes(b"rather long")
    (top / "link").symlink_to("d/file")
    os.link(top / "d/file", top / "d/e/again")
    os.truncate(top / "other", 50001)
    os.setxattr(top / "d/file", "user.note", b"value")
