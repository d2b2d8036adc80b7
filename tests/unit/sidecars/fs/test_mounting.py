"""Mirrors sidecars/fs/mounting.py, as far as it needs no mount."""

from pathlib import Path

import pytest

from sidecars.fs.mounting import clear, is_mounted
from strongroom.errors import MachineError

OTHER = b"22 1 0:5 / /run/other rw - fuse.strongroom strongroom ro\n"
PLAIN = b"23 1 8:1 / /run/a\\040model rw shared:1 - ext4 /dev/vda rw\n"
OURS = b"24 23 0:40 / /run/a\\040model ro,nosuid shared:2 master:3 - fuse.strongroom strongroom ro\n"


@pytest.mark.parametrize(
    ("table", "want"),
    [(OTHER, False), (PLAIN, False), (PLAIN + OURS, True), (OURS + OTHER, True), (OURS + PLAIN, False)],
)
def test_the_topmost_mount_counts(monkeypatch: pytest.MonkeyPatch, table: bytes, want: bool) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: table)
    assert is_mounted(Path("/run/a model")) is want


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    clear(tmp_path / "new" / "mount")
    assert (tmp_path / "new" / "mount").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"^mount .*: not a directory$"):
        clear(tmp_path / "file" / "mount")
