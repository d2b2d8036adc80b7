"""A real mount by the real daemon: what a reader sees."""

import errno
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strongroom.host.run import run
from tests.fakes.mounts import PAGE, mounted
from tests.fakes.sealed import CHUNK, SealedFixture, pattern, seal

pytestmark = pytest.mark.usefixtures("fuse_device")


def test_every_file_reads_back(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        found = {
            str(path.relative_to(daemon.mount)): path.read_bytes()
            for path in daemon.mount.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        assert found == pristine.contents
        assert os.readlink(daemon.mount / "latest") == "model-1.safetensors"
        assert (daemon.mount / "latest").read_bytes() == pristine.contents["model-1.safetensors"]
        assert (daemon.mount / "tokenizer/up.json").read_bytes() == pristine.contents["config.json"]
        assert daemon.stop() == (0, "")
        assert not os.path.ismount(daemon.mount)
    assert "READY=1\nSTATUS=serving tiny epoch 2, 9 entries" in daemon.notices


def test_attributes(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place, uid=1234) as daemon:
        status = (daemon.mount / "model-1.safetensors").stat()
        assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o644
        assert (status.st_size, status.st_blksize, status.st_nlink) == (5 * CHUNK + 100, CHUNK, 1)
        assert (status.st_mtime, status.st_uid, status.st_gid) == (1_700_000_000, 1234, 0)
        assert status.st_blocks == -(-status.st_size // 512)
        top = daemon.mount.stat()
        assert stat.S_ISDIR(top.st_mode) and top.st_nlink == 3
        total = os.statvfs(daemon.mount)
        assert total.f_blocks * total.f_frsize >= sum(map(len, pristine.contents.values()))
        assert (total.f_bavail, total.f_namemax, total.f_flag & os.ST_RDONLY) == (0, 255, os.ST_RDONLY)
        line = next(
            line for line in Path("/proc/mounts").read_text().splitlines() if str(daemon.mount) in line
        )
        assert line.startswith("strongroom ") and " fuse.strongroom " in line
        assert {"ro", "nosuid", "nodev", "noexec", "default_permissions", "allow_other"} <= set(
            line.split()[3].split(",")
        )
        ahead = Path(f"/sys/class/bdi/{os.major(top.st_dev)}:{os.minor(top.st_dev)}/read_ahead_kb")
        assert ahead.read_text() == "8192\n"


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 1),
        (1, 4095),
        (CHUNK - 1, 2),
        (CHUNK + 5, 3 * CHUNK),
        (5 * CHUNK + 50, 1000),
        (5 * CHUNK + 100, 10),
        (1 << 40, 5),
    ],
)
def test_reads_of_any_place_and_size(pristine: SealedFixture, place: Path, offset: int, size: int) -> None:
    content = pristine.contents["model-1.safetensors"]
    with mounted(pristine, place) as daemon:
        fd = os.open(daemon.mount / "model-1.safetensors", os.O_RDONLY)
        assert os.pread(fd, size, offset) == content[offset : offset + size]
        os.close(fd)


def test_direct_reads(pristine: SealedFixture, place: Path) -> None:
    content = pristine.contents["model-2.safetensors"]
    with mounted(pristine, place) as daemon:
        fd = os.open(daemon.mount / "model-2.safetensors", os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 8 << 20)
        assert os.preadv(fd, [buffer], 0) == len(content)
        assert buffer[: len(content)] == content
        assert os.preadv(fd, [buffer], 3 * PAGE) == len(content) - 3 * PAGE
        assert buffer[: len(content) - 3 * PAGE] == content[3 * PAGE :]
        os.close(fd)
        buffer.close()


@pytest.mark.parametrize("access", [mmap.ACCESS_READ, mmap.ACCESS_COPY])
def test_mapped_files(pristine: SealedFixture, place: Path, access: int) -> None:
    content = pristine.contents["model-1.safetensors"]
    with mounted(pristine, place) as daemon:
        with open(daemon.mount / "model-1.safetensors", "rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=access)
        assert view[:] == content
        view.close()


def test_holes_are_not_invented(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY)
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5
        assert os.lseek(fd, 5, os.SEEK_HOLE) == 4 * CHUNK
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with pytest.raises(OSError, match="No such device or address") as caught:
                os.lseek(fd, 4 * CHUNK, whence)
            assert caught.value.errno == errno.ENXIO
        os.close(fd)


def test_there_are_no_extended_attributes(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        for path in (daemon.mount, daemon.mount / "exact.bin"):
            with pytest.raises(OSError, match="not supported"):
                os.listxattr(path)
            with pytest.raises(OSError, match="not supported"):
                os.getxattr(path, "security.capability")


def test_permission_bits_decide(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place, uid=1234) as daemon:
        target = daemon.mount / "config.json"
        assert os.access(target, os.R_OK)
        assert not os.access(target, os.X_OK)
        assert not os.access(target, os.W_OK)


def test_statx_knows_no_birth(pristine: SealedFixture, place: Path) -> None:
    """Asked for the time of birth, the kernel sends STATX instead of GETATTR."""
    with mounted(pristine, place) as daemon:
        done = run(["stat", "-c", "%W %s %Y %h", daemon.mount / "exact.bin"])
        assert done.stdout.split() == [b"0", b"%d" % (4 * CHUNK), b"1700000000", b"1"]


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_memory_does_not_grow_with_readers(tmp_path: Path, place: Path, mode: str) -> None:
    """Sixty-four at once, each with a read of its own in flight."""
    source = tmp_path / "source"
    source.mkdir()
    content = pattern(24 << 20)
    (source / "weights").write_bytes(content)
    root = seal(source, tmp_path / "sealed")
    with mounted(SealedFixture(tmp_path / "sealed", root, 1, {}, {}), place, mode=mode) as daemon:
        path = daemon.mount / "weights"

        def read(number: int) -> bool:
            fd, offset = os.open(path, os.O_RDONLY | os.O_DIRECT), number % 24 << 20
            buffer = mmap.mmap(-1, 1 << 20)
            try:
                return (
                    os.preadv(fd, [buffer], offset) == 1 << 20
                    and buffer[:] == content[offset : offset + (1 << 20)]
                )
            finally:
                os.close(fd)
                buffer.close()

        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(read, range(512)))
        for pid in daemon.children():
            assert resident_bytes(pid) < 40 << 20


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def test_nothing_can_be_written(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        target = daemon.mount / "config.json"
        changes: list[Callable[[], object]] = [
            lambda: os.open(target, os.O_RDWR),
            lambda: os.open(target, os.O_WRONLY | os.O_TRUNC),
            lambda: os.open(daemon.mount / "new", os.O_CREAT | os.O_WRONLY),
            target.unlink,
            lambda: target.rename(daemon.mount / "other"),
            lambda: target.chmod(0o777),
            lambda: os.truncate(target, 0),
            lambda: os.mkdir(daemon.mount / "folder"),
            lambda: os.symlink("x", daemon.mount / "link"),
            lambda: os.utime(target),
            lambda: os.setxattr(target, "user.x", b"y"),
        ]
        for change in changes:
            with pytest.raises(OSError, match="Read-only file system") as caught:
                change()
            assert caught.value.errno == errno.EROFS
        for missing in ("nothing", "config.json/x", "tokenizer/nothing"):
            with pytest.raises(OSError, match=r"No such file|Not a directory"):
                os.stat(daemon.mount / missing)
        with pytest.raises(OSError, match="not supported"):
            os.getxattr(target, "user.x")


def test_a_large_directory_lists_completely(tmp_path: Path, place: Path) -> None:
    source = tmp_path / "many"
    source.mkdir()
    names = {f"file-{number:05}-{'x' * (number % 200)}" for number in range(3000)}
    for name in names:
        (source / name).write_bytes(name.encode())
    root = seal(source, tmp_path / "sealed", name="many")
    with mounted(SealedFixture(tmp_path / "sealed", root, 1, {}, {}), place) as daemon:
        assert set(os.listdir(daemon.mount)) == names
        with os.scandir(daemon.mount) as entries:
            assert {entry.name: entry.stat().st_size for entry in entries} == {
                name: len(name) for name in names
            }
        assert (daemon.mount / max(names)).read_bytes() == max(names).encode()


def test_many_readers_at_once(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon, ThreadPoolExecutor(16) as pool:
        jobs = [name for name in pristine.objects for _ in range(16)]

        def read(name: str) -> bool:
            fd = os.open(daemon.mount / name, os.O_RDONLY | os.O_DIRECT)
            try:
                buffer = mmap.mmap(-1, 1 << 20)
                count = os.preadv(fd, [buffer], 0)
                return buffer[:count] == pristine.contents[name]
            finally:
                os.close(fd)

        assert all(pool.map(read, jobs))


@pytest.mark.slow
def test_offsets_beyond_4_gib(tmp_path: Path, place: Path) -> None:
    source, size = tmp_path / "source", (4 << 30) + 3 * CHUNK + 5
    source.mkdir()
    tail = pattern(2 * CHUNK + 5)
    with (source / "large").open("wb") as file:
        file.truncate(size - len(tail))
        file.seek(size - len(tail))
        file.write(tail)
    root = seal(source, tmp_path / "sealed", name="large")
    with mounted(SealedFixture(tmp_path / "sealed", root, 1, {}, {}), place) as daemon:
        fd = os.open(daemon.mount / "large", os.O_RDONLY)
        assert os.fstat(fd).st_size == size
        assert os.pread(fd, len(tail) + 10, size - len(tail)) == tail
        assert os.pread(fd, 100, (4 << 30) - 50) == bytes(100)
        os.close(fd)
    shutil.rmtree(tmp_path / "sealed")  # four gigabytes
