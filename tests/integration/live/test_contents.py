"""Files of a mounted volume, through both front ends; the real gocryptfs reads each volume after its test."""

import contextlib
import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.live import refused
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


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
