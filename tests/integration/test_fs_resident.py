"""Files read into memory ahead: what a reader sees of it, what is refused, and how the memory is given back."""

import errno
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom.host.sealed.tree import SealedTree
from tests import need
from tests.fakes.mounts import PAGE, Daemon, damage, end, mounted, spawn
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, pattern, seal

pytestmark = pytest.mark.usefixtures("fuse_device", "passthrough")

SIZES = {"a.safetensors": (5 << 20) + 321, "b.safetensors": 3 << 20, "small.bin": 2 * CHUNK}
HUGE = 2 << 20


@pytest.fixture
def passthrough() -> None:
    release = os.uname().release.split(".")
    need((int(release[0]), int(release[1])) >= (6, 9), "the kernel has no FUSE passthrough, want Linux 6.9")


@pytest.fixture
def model(tmp_path: Path) -> SealedFixture:
    source, dest = tmp_path / "source", tmp_path / "sealed"
    source.mkdir()
    contents = {name: pattern(size, seed) for seed, (name, size) in enumerate(SIZES.items())}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    root = seal(source, dest)
    with SealedTree.open(dest, model_key=MODEL_KEY, epoch=1, root=root) as tree:
        objects = {one.file.path: dest / "objects" / one.file.object_name for one in tree.objects}
    return SealedFixture(dest, root, 1, contents, objects)


def settled(daemon: Daemon) -> list[int]:
    """Wait for the fillers to be gone; the workers remain."""
    until(lambda: len(daemon.children()) == 2)
    return daemon.children()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Nobody answers meanwhile: what can be read now, the kernel reads by itself."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_files_in_memory_are_read_without_us(model: SealedFixture, place: Path) -> None:
    with mounted(model, place, mode="resident", workers=2) as daemon:
        workers = settled(daemon)
        for name in ("a.safetensors", "b.safetensors"):
            content = model.contents[name]
            fd = os.open(daemon.mount / name, os.O_RDONLY)
            with stopped(workers):
                assert os.pread(fd, len(content), 0) == content
                assert os.pread(fd, 10, len(content)) == b""
                for access in (mmap.ACCESS_READ, mmap.ACCESS_COPY):
                    view = mmap.mmap(fd, 0, access=access)
                    assert view[:] == content
                    view.close()
            os.close(fd)
        assert (daemon.mount / "small.bin").read_bytes() == model.contents["small.bin"]
        daemon.hear(lambda: "serving tiny epoch 1, 3 entries; 0.0 GB in memory" in daemon.statuses())
        assert daemon.stop() == (0, "")


def test_every_open_of_a_file_is_of_one_kind(model: SealedFixture, place: Path) -> None:
    """As safetensors does: a private map for the header, then another of all of it, with the first still there."""
    content = model.contents["a.safetensors"]
    with mounted(model, place, mode="resident") as daemon:
        path = daemon.mount / "a.safetensors"
        opened = [os.open(path, flags) for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT, os.O_RDONLY)]
        views = [mmap.mmap(fd, 0, access=mmap.ACCESS_COPY) for fd in opened]
        for fd in opened:
            os.close(fd)
        for view in views:
            assert view[:] == content
            view[:5] = b"mine!"
            view.close()
        assert path.read_bytes() == content
        with pytest.raises(OSError, match="Read-only"):
            os.open(path, os.O_RDWR)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("chunk", [0, 33, 80])
def test_a_changed_byte_costs_the_whole_file(model: SealedFixture, place: Path, chunk: int) -> None:
    damage(model.objects["a.safetensors"], chunk * CHUNK + 5)
    with mounted(model, place, mode="resident") as daemon:
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error") as caught:
                os.open(daemon.mount / "a.safetensors", os.O_RDONLY)
            assert caught.value.errno == errno.EIO
        for name in ("b.safetensors", "small.bin"):
            assert (daemon.mount / name).read_bytes() == model.contents[name]
        name = model.objects["a.safetensors"].name
        want = f"object {name}: chunk {chunk}: tag does not verify; file refused"
        daemon.hear(lambda: want in daemon.statuses())
        assert daemon.stop() == (0, f"strongroom-fs: {want}\n")
    assert daemon.statuses()[-1] == want


def test_what_does_not_fit_is_streamed(model: SealedFixture, place: Path) -> None:
    for mode, in_memory, remark in (
        ("auto", 0, "serving tiny epoch 1, 3 entries; 0.0 GB do not fit into 0.0 GB of memory"),
        ("resident", 1, "serving tiny epoch 1, 3 entries; 0.0 GB in memory; 0.0 GB do not fit into 0.0 GB of memory"),
    ):  # fmt: skip
        with mounted(model, place, mode=mode, memory=3 * HUGE, workers=2) as daemon:
            workers = settled(daemon)
            for number, name in enumerate(("a.safetensors", "b.safetensors")):
                assert (daemon.mount / name).read_bytes() == model.contents[name]
                fd = os.open(daemon.mount / name, os.O_RDONLY | os.O_DIRECT)
                with ThreadPoolExecutor(1) as pool, stopped(workers):
                    reading = pool.submit(os.pread, fd, PAGE, 0)
                    time.sleep(0.05)
                    assert reading.done() == (number < in_memory)
                    for pid in workers:
                        os.kill(pid, signal.SIGCONT)
                    assert reading.result(20) == model.contents[name][:PAGE]
                os.close(fd)
            daemon.hear(lambda: remark in daemon.statuses())  # noqa: B023


def test_memory_is_given_back_when_asked(model: SealedFixture, place: Path) -> None:
    """Of files nobody has open; the others stay as they are until they are closed."""
    with mounted(model, place, mode="resident", workers=2) as daemon:
        workers = settled(daemon)
        held = os.open(daemon.mount / "a.safetensors", os.O_RDONLY)
        daemon.running.send_signal(signal.SIGHUP)
        assert (daemon.mount / "b.safetensors").read_bytes() == model.contents["b.safetensors"]
        with stopped(workers):
            assert os.pread(held, 9 << 20, 0) == model.contents["a.safetensors"]
        assert (daemon.mount / "a.safetensors").read_bytes() == model.contents["a.safetensors"]
        os.close(held)
        daemon.hear(lambda: "serving tiny epoch 1, 3 entries; nothing in memory" in daemon.statuses())
        assert (daemon.mount / "a.safetensors").read_bytes() == model.contents["a.safetensors"]
        assert daemon.stop() == (0, "")


def test_memory_outlives_the_daemon(model: SealedFixture, place: Path) -> None:
    """The next one finds the files where they are, and those who have them open notice nothing."""
    content = model.contents["a.safetensors"]
    with mounted(model, place, mode="resident", workers=2) as daemon:
        settled(daemon)
        fd = os.open(daemon.mount / "a.safetensors", os.O_RDONLY)
        view = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        daemon.kill()
        assert os.pread(fd, 9 << 20, 0) == view[:] == content  # nobody serves, nobody needs to
        for stored in model.objects.values():
            damage(stored, 0)  # what is verified and in memory is not read again
        daemon.again()
        again = os.open(daemon.mount / "a.safetensors", os.O_RDONLY)
        assert os.pread(again, 9 << 20, 0) == content
        assert (daemon.mount / "b.safetensors").read_bytes() == model.contents["b.safetensors"]
        view.close()
        os.close(fd)
        os.close(again)
        assert daemon.stop() == (0, "")


# A store that answers when it is told to


@pytest.fixture
def gated(tmp_path: Path, place: Path) -> Iterator[tuple[Daemon, Path, bytes]]:
    """A daemon that fills one file of 48 MiB as soon as there is a gate."""
    source = tmp_path / "plain"
    source.mkdir()
    content = pattern(48 << 20)
    (source / "weights").write_bytes(content)
    fixture = SealedFixture(source, bytes(32), 1, {}, {})
    daemon = spawn(fixture, place, arguments=("-m", "tests.fakes.gated"), mode="resident", workers=2)
    try:
        daemon.wait_ready()
        yield daemon, source / "gate", content
    finally:
        (source / "gate").touch()
        end(daemon)


def read_whole(path: Path) -> Future[bytes]:
    """By another process, which may be killed."""
    pool = ThreadPoolExecutor(1)
    return pool.submit(path.read_bytes)


def test_open_waits_for_the_whole_file(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    reading = [read_whole(daemon.mount / "weights") for _ in range(3)]
    time.sleep(0.2)
    assert not any(one.done() for one in reading)
    assert os.stat(daemon.mount / "weights").st_size == len(content)  # the others are served meanwhile
    gate.touch()
    assert all(one.result(20) == content for one in reading)


def test_whoever_waits_can_be_killed(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    with subprocess.Popen([sys.executable, "-c", f"open({str(daemon.mount / 'weights')!r})"]) as waiting:
        time.sleep(0.3)
        assert waiting.poll() is None
        waiting.kill()
        assert waiting.wait(10) == -signal.SIGKILL
    gate.touch()
    assert read_whole(daemon.mount / "weights").result(20) == content


def test_a_daemon_killed_while_it_fills(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    reading = read_whole(daemon.mount / "weights")
    time.sleep(0.1)
    daemon.kill()
    daemon.again()
    assert not reading.done()
    gate.touch()
    assert reading.result(20) == content


def test_killed_fillers_are_replaced(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    reading = read_whole(daemon.mount / "weights")
    for _ in range(2):
        for pid in daemon.children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    gate.touch()
    assert reading.result(20) == content


def test_a_file_no_filler_survives_is_streamed(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    reading = read_whole(daemon.mount / "weights")
    deadline = time.monotonic() + 20
    while len(daemon.children()) > 2:
        assert time.monotonic() < deadline
        for pid in daemon.children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    gate.touch()
    assert reading.result(20) == content
    daemon.hear(lambda: any("nothing in memory" in said for said in daemon.statuses()))


def test_a_file_the_store_fails_for_is_streamed(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    reading = read_whole(daemon.mount / "weights")
    gate.write_bytes(b"fail")
    with pytest.raises(OSError, match="Input/output error"):
        reading.result(20)
    gate.write_bytes(b"")
    assert read_whole(daemon.mount / "weights").result(20) == content
    assert "object 00: input/output error; read on demand" in daemon.stop()[1]


def test_a_worker_killed_over_an_open(gated: tuple[Daemon, Path, bytes]) -> None:
    """The kernel gives the OPEN out again: both the old and the new are answered, one of them to nobody."""
    daemon, gate, content = gated
    reading = read_whole(daemon.mount / "weights")
    time.sleep(0.2)
    for pid in daemon.children()[:2]:  # the first two are the workers
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    gate.touch()
    assert reading.result(20) == content
    daemon.running.send_signal(signal.SIGHUP)
    daemon.hear(lambda: any("nothing in memory" in said for said in daemon.statuses()))


@pytest.mark.guarantee("G4")
def test_what_was_refused_is_not_forgotten(model: SealedFixture, place: Path) -> None:
    damage(model.objects["a.safetensors"], 5)
    with mounted(model, place, mode="resident") as daemon:
        daemon.hear(lambda: "file refused" in daemon.statuses()[-1])
        daemon.kill()
        daemon.again()
        with pytest.raises(OSError, match="Input/output error"):
            os.open(daemon.mount / "a.safetensors", os.O_RDONLY)
        daemon.hear(lambda: len(daemon.statuses()) > 1)
        assert all("before a restart; file refused" in status for status in daemon.statuses())
        status, stderr = daemon.stop()
        assert status == 0
        assert "did not verify before a restart; file refused" in stderr


def test_a_store_that_failed_is_no_tampering(gated: tuple[Daemon, Path, bytes]) -> None:
    daemon, gate, content = gated
    gate.write_bytes(b"fail")
    with pytest.raises(OSError, match="Input/output error"):
        read_whole(daemon.mount / "weights").result(20)
    daemon.hear(lambda: "the store failed" in daemon.statuses()[-1])
    gate.write_bytes(b"")
    assert read_whole(daemon.mount / "weights").result(20) == content
    status, stderr = daemon.stop()
    assert (status, stderr.count("object 00: input/output error; read refused")) == (0, 1)
    assert all(status.startswith("serving ") for status in daemon.statuses())
