"""gocryptfs volumes through the real daemon: the same bytes, on demand and from memory, pinned and bare."""

import errno
import os
from pathlib import Path

import pytest

from strongroom.host.gocryptfs.pinning import pin_volume
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.side import side_root
from tests.fakes.gocryptfs import CONTENTS, LINKS, LONG_NAMES, MASTER_KEY, MIB, Written, write_volume
from tests.fakes.mounts import PAGE, Daemon, damage, mounted, read_pages, refused
from tests.fakes.sealed import SealedFixture

pytestmark = pytest.mark.usefixtures("fuse_device")

LARGE = "d/e/more"  # two MiB and a bit, so it is read ahead in resident mode
EPOCH = 4


@pytest.fixture
def volume(tmp_path: Path) -> Written:
    return write_volume(tmp_path / "cipher", contents=CONTENTS | LONG_NAMES)


def fixture(volume: Written) -> SealedFixture:
    return SealedFixture(volume.path, bytes(32), EPOCH, {}, {})


def pinned(volume: Written) -> dict[str, object]:
    """The members of a credential that pin the volume by a side manifest beside it."""
    made = pin_volume(volume.path, master_key=MASTER_KEY, epoch=EPOCH, name="tiny")
    data = made.seal(master_key=MASTER_KEY, salt=bytes(range(32)), volume_id=bytes(16))
    side = volume.path.with_name("side")
    side.write_bytes(data)
    return BARE | {"side": str(side), "root": side_root(data).hex(), "epoch": EPOCH, "key": MASTER_KEY}


BARE = {"format": "gocryptfs", "key": MASTER_KEY, "root": None, "epoch": None}


def found(daemon: Daemon) -> dict[str, bytes]:
    paths = [path for path in daemon.mount.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(daemon.mount)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("mode", ["stream", "resident"])
@pytest.mark.parametrize("kind", ["bare", "pinned"])
def test_every_file_reads_back(volume: Written, place: Path, mode: str, kind: str) -> None:
    members = BARE if kind == "bare" else pinned(volume)
    with mounted(fixture(volume), place, mode=mode, **members) as daemon:
        assert found(daemon) == CONTENTS | LONG_NAMES
        assert {name: os.readlink(daemon.mount / name) for name in LINKS} == LINKS
        assert (daemon.mount / "latest").read_bytes() == CONTENTS["d/block"]
        assert daemon.stop() == (0, "")


@pytest.mark.guarantee("G4")
def test_a_changed_block_costs_what_is_verified_with_it(volume: Written, place: Path) -> None:
    """A nonce: four KiB of a bare volume, a MiB of a pinned one."""
    content, members = CONTENTS[LARGE], pinned(volume)
    damage(volume.stored[LARGE], 18 + 300 * 4128)  # block 300, in the second MiB
    for given, unit in ((BARE, BLOCK), (members, MIB)):
        with mounted(fixture(volume), place, mode="stream", **given) as daemon:
            for number, page in read_pages(daemon.mount / LARGE, len(content)).items():
                at = number * PAGE
                bad = at // unit == 300 * BLOCK // unit
                assert page == (errno.EIO if bad else content[at : at + PAGE]), at
            assert "read refused" in daemon.stop()[1]


@pytest.mark.guarantee("G4")
def test_a_changed_block_costs_a_file_in_memory(volume: Written, place: Path) -> None:
    damage(volume.stored[LARGE], 18 + 300 * 4128 + 20)
    with mounted(fixture(volume), place, mode="resident", **BARE) as daemon:
        with pytest.raises(OSError, match="Input/output error"):
            (daemon.mount / LARGE).read_bytes()
        assert (daemon.mount / "d/e/mib").read_bytes() == CONTENTS["d/e/mib"]
        assert "file refused" in daemon.stop()[1]


@pytest.mark.guarantee("G4")
def test_what_gocryptfs_lets_pass_a_pinned_volume_does_not(volume: Written, place: Path) -> None:
    members = pinned(volume)
    stored = volume.stored["d/over"]
    with stored.open("r+b") as file:
        file.seek(18)
        file.write(bytes(4128))  # a hole, in gocryptfs's eyes
    with mounted(fixture(volume), place, mode="stream", **members) as daemon:
        assert set(read_pages(daemon.mount / "d/over", BLOCK).values()) == {errno.EIO}
    os.truncate(stored, 18 + 4128)
    assert refused(fixture(volume), place, **members)[0] == 5
    stored.unlink()
    assert refused(fixture(volume), place, **members)[0] == 5


@pytest.mark.guarantee("G5")
def test_another_epoch_root_or_key(volume: Written, place: Path) -> None:
    members = pinned(volume)
    for change, code in ({"epoch": 9}, 6), ({"root": "ab" * 32}, 5), ({"key": bytes(32)}, 5):
        assert refused(fixture(volume), place, **(members | change))[0] == code
    volume.path.with_name("side").unlink()
    assert refused(fixture(volume), place, **members) == (5, "strongroom-fs: side manifest: missing")
