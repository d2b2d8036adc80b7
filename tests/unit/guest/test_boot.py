"""Mirrors guest/boot.py: the order of the stages is a matter of types, and mypy is the judge."""

import os
import shutil
import sys
import zlib
from pathlib import Path

import pytest

from strongroom.host.run import run

ROOT = Path(__file__).parents[3]
BOOT = ROOT / "guest" / "boot.py"
STAGES = [line for line in BOOT.read_text().splitlines() if "await stage(" in line]


def judge(folder: Path, source: str) -> tuple[int, str]:
    """mypy's verdict on the project with another guest/boot.py."""
    shutil.copytree(ROOT / "guest", folder / "guest", ignore=shutil.ignore_patterns("__pycache__"))
    for shared in ("strongroom", "pyproject.toml"):
        (folder / shared).symlink_to(ROOT / shared)
    path = folder / "guest" / "boot.py"
    path.write_text(source)
    # mypy's cache tells versions apart by size and whole seconds, and a swap keeps the size.
    os.utime(path, (zlib.crc32(source.encode()), zlib.crc32(source.encode())))
    cache = ROOT / "build" / "mypy-boot"
    argv: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "guest/boot.py"]
    done = run(argv, cwd=folder, check=False, timeout=300.0)
    return done.status, done.stdout.decode()


def test_the_path_is_found() -> None:
    assert [line.split('"')[1] for line in STAGES] == [
        "configure", "measure", "keys", "sockets", "volumes", "receive", "mount", "certify", "tunnel", "gpu",
        "serve",
    ]  # fmt: skip


def test_the_right_order_type_checks(tmp_path: Path) -> None:
    status, said = judge(tmp_path, BOOT.read_text())
    assert status == 0, said


@pytest.mark.guarantee("G15")
@pytest.mark.parametrize("at", range(len(STAGES) - 1))
def test_two_swapped_lines_do_not(tmp_path: Path, at: int) -> None:
    lines = BOOT.read_text().splitlines()
    first, second = lines.index(STAGES[at]), lines.index(STAGES[at + 1])
    lines[first], lines[second] = lines[second], lines[first]
    status, said = judge(tmp_path, "\n".join(lines) + "\n")
    assert status == 1
    assert "guest/boot.py" in said
    assert "error:" in said


@pytest.mark.guarantee("G15")
@pytest.mark.parametrize("at", range(1, len(STAGES) - 1))
def test_a_left_out_stage_does_not(tmp_path: Path, at: int) -> None:
    status, said = judge(tmp_path, BOOT.read_text().replace(STAGES[at] + "\n", ""))
    assert status == 1
    assert "guest/boot.py" in said
