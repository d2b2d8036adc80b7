"""How the daemon lives, dies and comes back: stopped, killed, replaced, and its workers."""

import ctypes
import errno
import json
import mmap
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecars.fs import mounting
from sidecars.fs.mounting import abort, find
from sidecars.fs.mounting import unmount as unmount_once
from tests import need
from tests.fakes.mounts import PAGE, damage, end, forget_pages, mounted, refused, spawn, unmount
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, make_sealed

pytestmark = pytest.mark.usefixtures("fuse_device")


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
    """Where nobody keeps its descriptors the mount dies with it, and the next one makes another."""
    with mounted(pristine, place) as daemon:
        daemon.kill()
        daemon.lose()
        with pytest.raises(OSError, match=r"not connected|connection abort") as caught:
            os.statvfs(daemon.mount)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        daemon.again()
        assert (daemon.mount / "exact.bin").read_bytes() == pristine.contents["exact.bin"]
        assert daemon.stop() == (0, "")
        assert not os.path.ismount(daemon.mount)
        assert daemon.mount.is_dir()


def test_a_killed_daemon_goes_on_where_it_was(pristine: SealedFixture, place: Path) -> None:
    """With its descriptors kept, an open file stays open and a reader waits."""
    content = pristine.contents["model-1.safetensors"]
    with mounted(pristine, place) as daemon, ThreadPoolExecutor(1) as pool:
        fd = os.open(daemon.mount / "model-1.safetensors", os.O_RDONLY | os.O_DIRECT)
        before = os.stat(daemon.mount).st_dev
        daemon.kill()
        reading = pool.submit(os.pread, fd, PAGE, 2 * CHUNK)
        daemon.again()
        assert reading.result(20) == content[2 * CHUNK : 2 * CHUNK + PAGE]
        assert os.stat(daemon.mount).st_dev == before
        os.close(fd)
        assert daemon.stop() == (0, "")
        assert daemon.kept == []
        assert not os.path.ismount(daemon.mount)


def test_what_was_kept_serves_no_other_volume(pristine: SealedFixture, place: Path, tmp_path: Path) -> None:
    """The next daemon is told to serve something else: whoever reads the old mount gets an error, at once."""
    with mounted(pristine, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
        daemon.kill()
        tmp_path.joinpath("other").mkdir()
        other = make_sealed(tmp_path / "other", epoch=3)
        credentials = place / "credentials" / "volume"
        volume = json.loads(credentials.read_text())
        volume |= {"source": str(other.path), "root": other.root.hex(), "epoch": 3}
        credentials.write_text(json.dumps(volume))
        daemon.again()
        with pytest.raises(OSError, match=r"connected|abort"):
            os.pread(fd, PAGE, 0)
        os.close(fd)
        assert "serving tiny epoch 3, 9 entries" in daemon.statuses()
        assert (daemon.mount / "exact.bin").read_bytes() == other.contents["exact.bin"]


@pytest.mark.guarantee("G4")
def test_what_was_kept_is_given_up_where_the_volume_is_refused(sealed: SealedFixture, place: Path) -> None:
    with mounted(sealed, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
        daemon.kill()
        damage(sealed.path / "MANIFEST", 500)
        daemon.start(daemon.environment)
        assert daemon.wait()[0] == 5
        assert daemon.kept == []
        assert not os.path.ismount(daemon.mount)
        with pytest.raises(OSError, match=r"connected|abort"):
            os.pread(fd, PAGE, 0)
        os.close(fd)


def test_a_store_that_is_away_for_a_moment_loses_nothing(sealed: SealedFixture, place: Path) -> None:
    """A daemon that cannot read the manifest ends, the next one goes on: the mount is kept for it."""
    with mounted(sealed, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
        daemon.kill()
        sealed.path.rename(sealed.path.with_name("away"))
        daemon.start(daemon.environment)
        assert daemon.wait()[0] == 8
        sealed.path.with_name("away").rename(sealed.path)
        daemon.again()
        assert os.pread(fd, PAGE, 0) == sealed.contents["exact.bin"][:PAGE]
        os.close(fd)


@pytest.mark.parametrize("kind", ["another of ours", "tmpfs"])
def test_another_mount_over_ours_is_neither_taken_nor_ended(
    pristine: SealedFixture, place: Path, kind: str
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    (place / "second").mkdir()
    with mounted(pristine, place) as daemon, mounted(pristine, place / "second") as second:
        daemon.kill()
        what = (os.fsencode(second.mount), None, 4096) if kind != "tmpfs" else (b"tmpfs", b"tmpfs", 0)
        assert libc.mount(what[0], os.fsencode(daemon.mount), what[1], what[2], None) == 0
        there = find(daemon.mount)
        kept = list(daemon.kept)
        daemon.start(daemon.environment)
        status, stderr = daemon.wait()
        assert (status, stderr.count("\n")) == (8, 1)
        assert stderr.startswith(f"strongroom-fs: unmount {daemon.mount}: mount ")
        assert find(daemon.mount) == there
        assert daemon.kept == kept
        unmount_once(daemon.mount)
        daemon.again()
        assert (daemon.mount / "exact.bin").read_bytes() == pristine.contents["exact.bin"]
        assert second.stop() == (0, "")


@pytest.mark.parametrize("lost", ["device", "clone", "agreement"])
def test_half_of_what_was_kept_is_nothing(pristine: SealedFixture, place: Path, lost: str) -> None:
    with mounted(pristine, place) as daemon:
        daemon.kill()
        daemon.lose(lost)
        daemon.again()
        assert (daemon.mount / "exact.bin").read_bytes() == pristine.contents["exact.bin"]
        assert daemon.stop() == (0, "")
        assert not os.path.ismount(daemon.mount)


def test_a_killed_worker_costs_a_moment(pristine: SealedFixture, place: Path) -> None:
    content = pristine.contents["model-1.safetensors"]
    with mounted(pristine, place) as daemon:
        for _ in range(5):
            for pid in daemon.children():
                os.kill(pid, signal.SIGKILL)
            forget_pages(daemon.mount / "model-1.safetensors")
            assert (daemon.mount / "model-1.safetensors").read_bytes() == content
        status, stderr = daemon.stop()
        assert status == 0
        assert set(stderr.splitlines()) == {
            "strongroom-fs: a worker ended with status -9, another takes over"
        }


@pytest.mark.guarantee("G11")
def test_workers_can_do_nothing_but_read(pristine: SealedFixture, place: Path) -> None:
    """No capability and no way to one, and of our descriptors only the device's clone, the line and the objects."""
    with mounted(pristine, place) as daemon:
        for pid in daemon.children():
            proc = Path(f"/proc/{pid}")
            status = dict(line.partition(":\t")[::2] for line in (proc / "status").read_text().splitlines())
            assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
            assert status["NoNewPrivs"] == "1"
            opened = [os.readlink(one) for one in (proc / "fd").iterdir() if int(one.name) > 2]
            assert opened.count("/dev/fuse") == 1
            assert sum(one.startswith("socket:") for one in opened) == 1
            rest = [one for one in opened if one != "/dev/fuse" and not one.startswith("socket:")]
            assert all(one.startswith(str(pristine.path)) for one in rest), rest


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


def test_an_aborted_connection_ends_its_readers(
    pristine: SealedFixture, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last resort of a stop: while its device is held by processes that do nothing any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    need(libc.mount(b"fusectl", os.fsencode(tmp_path), b"fusectl", 0, None) == 0, "no fusectl here")
    monkeypatch.setattr(mounting, "_CONNECTIONS", tmp_path)
    try:
        with mounted(pristine, place) as daemon, ThreadPoolExecutor(1) as pool:
            fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
            made = find(daemon.mount)
            assert made is not None
            for pid in (daemon.pid, *daemon.children()):
                os.kill(pid, signal.SIGSTOP)
            reading = pool.submit(os.pread, fd, PAGE, 0)
            with pytest.raises(TimeoutError):
                reading.result(0.3)
            assert abort(made)
            with pytest.raises(OSError, match=r"connected|abort"):
                reading.result(20)
            os.close(fd)
            daemon.running.kill()
    finally:
        unmount(tmp_path)


def test_a_mount_taken_from_under_it_ends_the_daemon(pristine: SealedFixture, place: Path) -> None:
    with mounted(pristine, place) as daemon:
        unmount(daemon.mount)
        status, stderr = daemon.wait()
        assert status == 8
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
        proc = Path(f"/proc/{daemon.pid}")
        seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        assert MODEL_KEY not in seen and MODEL_KEY.hex().encode() not in seen
