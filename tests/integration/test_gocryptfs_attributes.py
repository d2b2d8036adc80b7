"""Extended attributes of a gocryptfs volume: bound to nothing on disk, so a pinned volume gives none out."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecars.fs.live.volume import open_volume
from strongroom.errors import VerifyError
from strongroom.host.gocryptfs.pinning import pin_volume
from strongroom.sealed.gocryptfs.side import side_root
from tests.fakes.gocryptfs import MASTER_KEY, Written, write_volume
from tests.fakes.mounts import mounted
from tests.fakes.sealed import SealedFixture

pytestmark = pytest.mark.usefixtures("fuse_device")

CONTENTS = {"a": b"first", "b": b"second"}
EPOCH = 4


@pytest.fixture
def volume(tmp_path: Path) -> Written:
    written = write_volume(tmp_path / "cipher", contents=CONTENTS, links={})
    attributes = written.ciphers.attributes
    for number, name in enumerate(CONTENTS):
        value = attributes.seal_value(name.encode(), bytes([number + 1]) * 16)
        os.setxattr(written.stored[name], attributes.seal_name(b"user.note"), value)
    return written


def on_disk(volume: Written) -> bytes:
    return volume.ciphers.attributes.seal_name(b"user.note")


def exchange(volume: Written) -> None:
    a, b = (volume.stored[name] for name in CONTENTS)
    values = os.getxattr(a, on_disk(volume)), os.getxattr(b, on_disk(volume))
    os.setxattr(a, on_disk(volume), values[1])
    os.setxattr(b, on_disk(volume), values[0])


def empty(volume: Written) -> None:
    os.setxattr(volume.stored["a"], on_disk(volume), b"")


def remove(volume: Written) -> None:
    os.removexattr(volume.stored["a"], on_disk(volume))


def rename(volume: Written) -> None:
    """The same value under another name, which is sealed under the same IV for all."""
    value = os.getxattr(volume.stored["a"], on_disk(volume))
    os.setxattr(volume.stored["a"], volume.ciphers.attributes.seal_name(b"user.other"), value)
    remove(volume)


def seen(volume: Written, intents: Path) -> dict[str, bytes]:
    """The attributes of "a", as a volume that is written to serves them."""
    with open_volume(volume.path, master_key=MASTER_KEY, intents=intents, report=print) as live:
        return {name: live.getxattr("/a", name) for name in live.listxattr("/a")}


EDITS: list[tuple[Callable[[Written], None], dict[str, bytes]]] = [
    (exchange, {"user.note": b"b"}),
    (empty, {"user.note": b""}),
    (remove, {}),
    (rename, {"user.other": b"a"}),
]


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(("edit", "found"), EDITS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_the_format_does_not_bind_is_not_served(
    volume: Written, place: Path, tmp_path: Path, edit: Callable[[Written], None], found: dict[str, bytes]
) -> None:
    assert seen(volume, tmp_path / "intents") == {"user.note": b"a"}
    made = pin_volume(volume.path, master_key=MASTER_KEY, epoch=EPOCH, name="tiny")
    data = made.seal(master_key=MASTER_KEY, salt=bytes(range(32)), volume_id=bytes(16))
    side = tmp_path / "side"
    side.write_bytes(data)
    edit(volume)
    assert seen(volume, tmp_path / "intents") == found  # as the bare format lets pass
    members = {"format": "gocryptfs", "side": str(side), "root": side_root(data).hex(), "epoch": EPOCH}
    fixture = SealedFixture(volume.path, bytes(32), EPOCH, {}, {})
    with mounted(fixture, place, mode="stream", key=MASTER_KEY, **members) as daemon:
        for name, content in CONTENTS.items():
            path = daemon.mount / name
            assert path.read_bytes() == content
            with pytest.raises(OSError, match=r"Errno \d+") as caught:
                os.getxattr(path, "user.note")
            assert caught.value.errno in (errno.EOPNOTSUPP, errno.ENOSYS)
            with pytest.raises(OSError, match=r"Errno \d+"):
                os.listxattr(path)
        assert daemon.stop() == (0, "")


def test_one_that_was_changed_is_refused_where_it_is_served(volume: Written, tmp_path: Path) -> None:
    value = bytearray(os.getxattr(volume.stored["a"], on_disk(volume)))
    value[-1] ^= 1
    os.setxattr(volume.stored["a"], on_disk(volume), bytes(value))
    with pytest.raises(VerifyError, match="attribute"):
        seen(volume, tmp_path / "intents")
