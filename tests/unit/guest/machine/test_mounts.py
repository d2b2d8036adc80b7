"""Mirrors guest/machine/mounts.py."""

from pathlib import Path

import pytest

from guest.machine.mounts import OURS, type_at

POINT = "/run/strongroom/volumes/state"
LOWER = f"30 22 0:50 / {POINT} rw shared:9 - tmpfs tmpfs rw\n"
LIVE = f"31 30 0:51 / {POINT} rw,nosuid shared:10 master:3 propagate_from:2 - {OURS} strongroom rw\n"
DEEPER = f"32 31 0:52 / {POINT}/deeper rw - ext4 /dev/vda rw\n"
ODD = "33 22 8:1 / /mnt/a\\040b rw - ext4 /dev/\xff rw\n"


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("", None),
        (DEEPER, None),
        (LOWER, "tmpfs"),
        (LOWER + LIVE + DEEPER, OURS),
        (ODD + LIVE, OURS),
        (LIVE + LOWER, "tmpfs"),
    ],
)
def test_the_topmost_counts_and_nobody_is_asked(tmp_path: Path, table: str, found: str | None) -> None:
    (tmp_path / "mountinfo").write_bytes(table.encode("latin-1"))
    assert type_at(POINT, tmp_path / "mountinfo") == found


def test_the_kernels_own_table_is_read() -> None:
    assert type_at("/proc") == "proc"
