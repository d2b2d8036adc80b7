"""Every kind of volume: written by us and read by the real gocryptfs, and back."""

import os
from pathlib import Path

import pytest

from tests.fakes.gocryptfs import KINDS, mounted
from tests.fakes.live import FRONTS, agrees, init, running, snapshot
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


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
