"""A real mount by the real daemon: what a reader sees, and what it never gets to see."""

import ctypes
import errno
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import ROOT
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, make_sealed, pattern, seal

pytestmark = pytest.mark.usefixtures("fuse_device")
PAGE = 4096


@dataclass
class Daemon:
    """One run of `python -m sidecars.fs`, and what the service manager would hear of it."""

    process: subprocess.Popen[str]
    mount: Path
    listener: socket.socket
    notices: list[str] = field(default_factory=list)

    def wait_ready(self) -> None:
        self.hear(lambda: any(notice.startswith("READY=1") for notice in self.notices))

    def hear(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not enough():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, self.notices
            with suppress(TimeoutError):
                self.notices.append(self.listener.recv(4096).decode())

    def stop(self) -> tuple[int, str]:
        """Exit status and stderr after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=20)
        return self.process.returncode, stderr


def spawn(
    sealed: SealedFixture,
    at: Path,
    *,
    key: bytes = MODEL_KEY,
    environment: dict[str, str] | None = None,
    **members: object,
) -> Daemon:
    """Start the daemon with its credentials under `at`."""
    credentials, mount, address = at / "credentials", at / "mount", at / "notify"
    credentials.mkdir(exist_ok=True)
    volume = {
        "source": str(sealed.path),
        "mount": str(mount),
        "root": sealed.root.hex(),
        "epoch": sealed.epoch,
    }
    (credentials / "volume").write_text(json.dumps(volume | members))
    (credentials / "model-key").write_bytes(key)
    address.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(address))
    listener.settimeout(0.2)
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecars.fs"],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "CREDENTIALS_DIRECTORY": str(credentials),
            "NOTIFY_SOCKET": str(address),
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Daemon(process, mount, listener)


@contextmanager
def mounted(sealed: SealedFixture, at: Path, **members: object) -> Iterator[Daemon]:
    daemon = spawn(sealed, at, **members)  # type: ignore[arg-type]
    try:
        daemon.wait_ready()
        yield daemon
    finally:
        end(daemon)


def end(daemon: Daemon) -> None:
    if daemon.process.poll() is None:
        daemon.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            daemon.process.wait(10)
    daemon.process.kill()
    daemon.process.wait()
    if daemon.process.stderr:
        daemon.process.stderr.close()
    daemon.listener.close()
    while ctypes.CDLL(None).umount2(os.fsencode(daemon.mount), 2) == 0:  # whatever a failed test left
        pass


def refused(sealed: SealedFixture, at: Path, **members: object) -> tuple[int, str]:
    """Exit code and the one line of a daemon that does not come up."""
    daemon = spawn(sealed, at, **members)  # type: ignore[arg-type]
    try:
        _, stderr = daemon.process.communicate(timeout=20)
        assert stderr.count("\n") == 1
        assert not os.path.ismount(daemon.mount)
        return daemon.process.returncode, stderr.strip()
    finally:
        end(daemon)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> SealedFixture:
    return make_sealed(tmp_path_factory.mktemp("pristine"), epoch=2)


@pytest.fixture
def place(socket_dir: Path) -> Path:
    return socket_dir


@pytest.fixture
def sealed(pristine: SealedFixture, tmp_path: Path) -> SealedFixture:
    """A copy that a test may damage."""
    path = tmp_path / "sealed"
    shutil.copytree(pristine.path, path)
    objects = {name: path / "objects" / at.name for name, at in pristine.objects.items()}
    return SealedFixture(path, pristine.root, pristine.epoch, pristine.contents, objects)


def read_pages(path: Path, size: int) -> dict[int, bytes | int | None]:
    """Every page of a file by its number: its bytes, or the errno that a reader got."""
    pages: dict[int, bytes | int | None] = {}
    fd = os.open(path, os.O_RDONLY)
    try:
        for number in range(-(-size // PAGE)):
            try:
                pages[number] = os.pread(fd, PAGE, number * PAGE)
            except OSError as error:
                pages[number] = error.errno
    finally:
        os.close(fd)
    return pages


def assert_only_refused(path: Path, content: bytes, chunks: set[int]) -> None:
    """Pages of `chunks` give EIO, and every other page its true content."""
    pages = read_pages(path, len(content))
    for number, page in pages.items():
        if number * PAGE // CHUNK in chunks:
            assert page == errno.EIO, f"page {number}"
        else:
            assert page == content[number * PAGE : (number + 1) * PAGE], f"page {number}"


# What a reader sees


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
    assert daemon.notices[0] == "READY=1\nSTATUS=serving tiny epoch 2, 9 entries"


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
        os.close(fd)


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


# What no reader sees


def damage(path: Path, offset: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


@pytest.mark.guarantee("G4")
def test_a_changed_byte_costs_its_chunk_and_no_other(sealed: SealedFixture, place: Path) -> None:
    touched = {"model-1.safetensors": {0, 3}, "model-2.safetensors": {5}, "exact.bin": {1, 3}}
    for name, chunks in touched.items():
        for chunk in chunks:
            size = len(sealed.contents[name])
            damage(
                sealed.objects[name], min(chunk * CHUNK + 12345 * (chunk + 1) % CHUNK, size - 1), 1 << chunk
            )
    with mounted(sealed, place) as daemon:
        for name, chunks in touched.items():
            assert_only_refused(daemon.mount / name, sealed.contents[name], chunks)
        assert (daemon.mount / "config.json").read_bytes() == sealed.contents["config.json"]
        code, stderr = daemon.stop()
    lines = stderr.splitlines()
    assert code == 0
    assert sorted(lines) == sorted(
        f"strongroom-fs: object {sealed.objects[name].name}: chunk {chunk}: tag does not verify; read refused"
        for name, chunks in touched.items()
        for chunk in chunks
    )


@pytest.mark.guarantee("G4")
def test_status_says_what_is_damaged(sealed: SealedFixture, place: Path) -> None:
    damage(sealed.objects["exact.bin"], 0)
    with mounted(sealed, place) as daemon:
        with pytest.raises(OSError, match="Input/output error"):
            (daemon.mount / "exact.bin").read_bytes()
        want = f"STATUS=object {sealed.objects['exact.bin'].name}: chunk 0: tag does not verify; read refused"
        daemon.hear(lambda: want in daemon.notices)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("chunk", range(6))
def test_a_byte_of_any_chunk(sealed: SealedFixture, place: Path, chunk: int) -> None:
    content = sealed.contents["model-1.safetensors"]
    damage(sealed.objects["model-1.safetensors"], chunk * CHUNK + 17)
    with mounted(sealed, place) as daemon:
        assert_only_refused(daemon.mount / "model-1.safetensors", content, {chunk})


@pytest.mark.guarantee("G4")
def test_a_zeroed_chunk(sealed: SealedFixture, place: Path) -> None:
    with sealed.objects["exact.bin"].open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(bytes(CHUNK))
    with mounted(sealed, place) as daemon:
        assert_only_refused(daemon.mount / "exact.bin", sealed.contents["exact.bin"], {2})


@pytest.mark.guarantee("G4")
def test_swapped_chunks(sealed: SealedFixture, place: Path) -> None:
    path = sealed.objects["exact.bin"]
    data = path.read_bytes()
    path.write_bytes(data[CHUNK : 2 * CHUNK] + data[:CHUNK] + data[2 * CHUNK :])
    with mounted(sealed, place) as daemon:
        assert_only_refused(daemon.mount / "exact.bin", sealed.contents["exact.bin"], {0, 1})


@pytest.mark.guarantee("G4")
def test_swapped_objects(sealed: SealedFixture, place: Path) -> None:
    one, two = sealed.objects["model-1.safetensors"], sealed.objects["model-2.safetensors"]
    spare = one.with_name("spare")
    one.rename(spare)
    two.rename(one)
    spare.rename(two)
    with mounted(sealed, place) as daemon:
        for name in ("model-1.safetensors", "model-2.safetensors"):
            assert_only_refused(daemon.mount / name, sealed.contents[name], set(range(6)))
        assert_only_refused(daemon.mount / "exact.bin", sealed.contents["exact.bin"], set())


@pytest.mark.guarantee("G4")
def test_a_direct_read_over_a_bad_chunk_gives_nothing(sealed: SealedFixture, place: Path) -> None:
    damage(sealed.objects["exact.bin"], 3 * CHUNK + 5)
    with mounted(sealed, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4 * CHUNK)
        with pytest.raises(OSError, match="Input/output error"):
            os.preadv(fd, [buffer], 0)
        assert buffer[:] == bytes(4 * CHUNK)
        os.close(fd)
        buffer.close()


@pytest.mark.guarantee("G4")
def test_a_mapped_bad_chunk_kills_its_reader(sealed: SealedFixture, place: Path) -> None:
    damage(sealed.objects["exact.bin"], CHUNK)
    program = (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ);"
        f"print(len(m[:{PAGE}]), flush=True); m[{CHUNK}]"
    )
    with mounted(sealed, place) as daemon:
        path = daemon.mount / "exact.bin"
        reader = subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
        )
    assert reader.stdout == f"{PAGE}\n"
    assert reader.returncode == -signal.SIGBUS


@pytest.mark.guarantee("G4")
def test_damage_done_while_mounted(sealed: SealedFixture, place: Path) -> None:
    name, content = "model-1.safetensors", sealed.contents["model-1.safetensors"]
    with mounted(sealed, place) as daemon:
        assert (daemon.mount / name).read_bytes() == content
        damage(sealed.objects[name], 2 * CHUNK + 9)
        os.truncate(sealed.objects[name], 4 * CHUNK)
        fd = os.open(daemon.mount / name, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        assert_only_refused(daemon.mount / name, content, {2, 4, 5})


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("name", ["model-1.safetensors", "model-2.safetensors", "exact.bin"])
def test_objects_of_another_length(sealed: SealedFixture, place: Path, name: str) -> None:
    path, size = sealed.objects[name], len(sealed.contents[name])
    for length in (size - 1, size - size % CHUNK - CHUNK, 0, size + 1, size + CHUNK):
        os.truncate(path, length)
        want = f"strongroom-fs: object {path.name}: {length} bytes, want {size}"
        assert refused(sealed, place) == (5, want)
    path.unlink()
    assert refused(sealed, place) == (5, f"strongroom-fs: object {path.name}: missing, want {size} bytes")
    path.symlink_to("/dev/zero")
    assert refused(sealed, place)[0] == 8
    path.unlink()
    os.mkfifo(path)
    assert refused(sealed, place) == (5, f"strongroom-fs: object {path.name}: not a regular file")


@pytest.mark.guarantee("G4")
def test_changed_tags_and_manifest(sealed: SealedFixture, place: Path) -> None:
    for name, step in (("TAGS", 61), ("MANIFEST", 397)):
        good = (sealed.path / name).read_bytes()
        for position in range(0, len(good), step):
            damage(sealed.path / name, position, 1 << position % 8)
            code, line = refused(sealed, place)
            assert code in (4, 5, 6), line
            assert line.startswith(f"strongroom-fs: {name.lower()}: "), line
            (sealed.path / name).write_bytes(good)
        for cut in (good[:-1], good + b"\0", b""):
            (sealed.path / name).write_bytes(cut)
            assert refused(sealed, place)[0] in (4, 5)
        (sealed.path / name).unlink()
        assert refused(sealed, place) == (5, f"strongroom-fs: {name.lower()}: missing")
        (sealed.path / name).write_bytes(good)


@pytest.mark.guarantee("G4")
def test_an_object_of_an_older_seal(sealed: SealedFixture, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    older = make_sealed(other, epoch=1)
    older.objects["exact.bin"].replace(sealed.objects["exact.bin"])
    # The same plaintext, key and even file id, but another salt: in life the file id differs as well.
    damage(sealed.objects["exact.bin"], 0)
    with mounted(sealed, place) as daemon:
        pages = read_pages(daemon.mount / "exact.bin", CHUNK)
        assert set(pages.values()) == {errno.EIO}


@pytest.mark.guarantee("G5")
def test_an_older_tree_put_back_whole(sealed: SealedFixture, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    older = make_sealed(other, epoch=1)
    shutil.rmtree(sealed.path)
    shutil.copytree(older.path, sealed.path)
    assert refused(sealed, place) == (6, "strongroom-fs: manifest: epoch is 1, want 2")


@pytest.mark.guarantee("G4")
def test_another_tree_of_the_same_epoch(sealed: SealedFixture, place: Path) -> None:
    wanted = "ab" * 32
    assert refused(sealed, place, root=wanted) == (
        5,
        f"strongroom-fs: manifest: root digest is {sealed.root.hex()}, want {wanted}",
    )


def test_another_key(sealed: SealedFixture, place: Path) -> None:
    code, line = refused(sealed, place, key=bytes(32))
    assert code == 5
    assert line.startswith("strongroom-fs: manifest: key commitment does not match")


# How it lives and dies


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("members", "code", "line"),
    [
        ({"key": b"short"}, 4, "credential model-key: less than 32 bytes"),
        ({"key": bytes(33)}, 4, "credential model-key: more than 32 bytes"),
        ({"epoch": 0}, 3, "volume.epoch: got 0, want a whole number 1..9007199254740991"),
        ({"source": "/nowhere/at/all"}, 8, "sealed tree /nowhere/at/all: no such file or directory"),
        ({"extra": 1}, 3, "volume.extra: unknown key"),
    ],
)
def test_bad_input_is_one_line(
    sealed: SealedFixture, place: Path, members: dict[str, object], code: int, line: str
) -> None:
    assert refused(sealed, place, **members) == (code, f"strongroom-fs: {line}")


def test_a_killed_daemon_is_replaced(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as first:
        first.process.kill()
        first.process.wait()
        with pytest.raises(OSError, match="not connected") as caught:
            os.statvfs(first.mount)
        assert caught.value.errno == errno.ENOTCONN
        with mounted(pristine, place) as second:
            assert (second.mount / "exact.bin").read_bytes() == pristine.contents["exact.bin"]
            assert second.stop() == (0, "")
        assert not os.path.ismount(second.mount)
        assert second.mount.is_dir()


def test_a_busy_mount_is_taken_away_too(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
        assert daemon.stop()[0] == 0
        assert not os.path.ismount(daemon.mount)
        buffer = mmap.mmap(-1, PAGE)
        with pytest.raises(OSError, match=r"connected|abort"):
            os.preadv(fd, [buffer], 0)
        os.close(fd)
        buffer.close()


def test_a_mount_taken_from_under_it_ends_the_daemon(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        assert ctypes.CDLL(None).umount2(os.fsencode(daemon.mount), 2) == 0
        _, stderr = daemon.process.communicate(timeout=20)
        assert daemon.process.returncode == 8
        assert stderr == "strongroom-fs: mount: no longer served, want it until we are stopped\n"


def test_the_watchdog_is_fed(pristine: SealedFixture, place: Path) -> None:
    daemon = spawn(pristine, place, environment={"WATCHDOG_USEC": "200000"})
    try:
        daemon.hear(lambda: daemon.notices.count("WATCHDOG=1") >= 3)
    finally:
        end(daemon)


@pytest.mark.guarantee("G11")
def test_the_key_is_nowhere_to_be_seen(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        proc = Path(f"/proc/{daemon.process.pid}")
        seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        assert MODEL_KEY not in seen and MODEL_KEY.hex().encode() not in seen


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
