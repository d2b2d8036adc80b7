"""A store that is full: whole blocks are taken or none, and names that find no room leave nothing."""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.gocryptfs import fsck
from tests.fakes.live import FRONTS, init, running, snapshot
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


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
