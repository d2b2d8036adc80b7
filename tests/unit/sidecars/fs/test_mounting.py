"""Mirrors sidecars/fs/mounting.py, as far as it needs no mount."""

import os
from pathlib import Path

import pytest

from sidecars.fs import mounting
from sidecars.fs.mounting import TYPE, Mounted, abort, clear, find, leave, raise_read_ahead
from strongroom.errors import MachineError

OTHER = b"22 1 0:5 / /run/other rw - fuse.strongroom strongroom ro\n"
PLAIN = b"23 1 8:1 / /run/a\\040model rw shared:1 - ext4 /dev/vda rw\n"
HIDES = Mounted(23, "8:1", "ext4")
OURS = b"24 23 0:40 / /run/a\\040model ro,nosuid shared:2 master:3 - fuse.strongroom strongroom ro\n"
MADE = Mounted(24, "0:40", TYPE)
POINT = Path("/run/a model")


@pytest.mark.parametrize(
    ("table", "want"),
    [(OTHER, None), (PLAIN, HIDES), (PLAIN + OURS, MADE), (OURS + OTHER, MADE), (OURS + PLAIN, HIDES)],
)
def test_the_topmost_mount_counts(
    monkeypatch: pytest.MonkeyPatch, table: bytes, want: Mounted | None
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: table)
    assert find(POINT) == want


@pytest.fixture
def unmounted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made: list[Path] = []
    monkeypatch.setattr(mounting, "unmount", made.append)
    return made


@pytest.mark.parametrize(
    "table", [OURS + PLAIN, OURS.replace(b"24 23", b"31 23"), OURS.replace(b"0:40", b"0:41")]
)
def test_only_what_was_made_is_left(
    monkeypatch: pytest.MonkeyPatch, unmounted: list[Path], table: bytes
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: table)
    with pytest.raises(
        MachineError,
        match=r"^unmount /run/a model: mount \d+ .* lies there, want mount 24 \(fuse.strongroom, ",
    ):
        leave(POINT, MADE)
    assert unmounted == []
    monkeypatch.setattr(Path, "read_bytes", lambda _: OTHER)
    leave(POINT, MADE)
    assert unmounted == []
    monkeypatch.setattr(Path, "read_bytes", lambda _: OURS)
    leave(POINT, MADE)
    assert unmounted == [POINT]


def test_a_mount_of_another_kind_is_not_cleared_away(
    monkeypatch: pytest.MonkeyPatch, unmounted: list[Path]
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: OURS + PLAIN)
    with pytest.raises(
        MachineError, match=r"^mount .*: mount 23 \(ext4, device 8:1\) lies there, want none$"
    ):
        clear(POINT)
    assert unmounted == []


def test_read_ahead_asks_nobody_who_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(path: Path) -> None:
        raise AssertionError(path)

    written: list[str] = []
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "read_bytes", lambda _: OURS)
    monkeypatch.setattr(Path, "write_text", lambda path, _: written.append(str(path)))
    assert raise_read_ahead(POINT)
    assert written == ["/sys/class/bdi/0:40/read_ahead_kb"]


def test_a_connection_is_aborted_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounting, "_CONNECTIONS", tmp_path)
    assert not abort(MADE)
    (tmp_path / "40").mkdir()
    assert abort(MADE)
    assert (tmp_path / "40" / "abort").read_text() == "1"


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    clear(tmp_path / "new" / "mount")
    assert (tmp_path / "new" / "mount").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"^mount .*: not a directory$"):
        clear(tmp_path / "file" / "mount")


@pytest.mark.parametrize("umask", [0, 0o077])
def test_whatever_the_umask_is_nobody_else_can_change_what_leads_to_a_mount(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        clear(tmp_path / "volumes" / "state")
    finally:
        os.umask(before)
    for folder in (tmp_path / "volumes", tmp_path / "volumes" / "state"):
        assert folder.stat().st_mode & 0o022 == 0
