"""A store that lies: changed blocks, what was put into it, another key; and unmounting whatever is open."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.live import FRONTS, drop, init, running
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


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
