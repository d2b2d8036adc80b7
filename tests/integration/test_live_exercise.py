"""Random operations on a mounted volume and on a plain directory beside it; `python -m tests.exercise_fs` does more."""

from pathlib import Path

import pytest

from tests.exercise_fs import ROUND, Different, Exercise, Round
from tests.fakes.gocryptfs import program

pytestmark = pytest.mark.usefixtures("fuse_device")


@pytest.mark.parametrize(("front", "operations"), [("raw", 20_000), ("portable", 8_000)])
def test_a_volume_behaves_as_a_plain_directory(tmp_path: Path, front: str, operations: int) -> None:
    program()
    said: list[str] = []
    exercise = Exercise(tmp_path, front)
    assert operations <= exercise.run(operations=operations, seed=1, say=said.append) <= operations + ROUND
    assert said


def test_a_difference_is_found(tmp_path: Path) -> None:
    for name in ("ours", "plain"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours/odd").touch()
    this = Round(1, 0, tmp_path / "ours", tmp_path / "plain")
    with pytest.raises(Different, match=r"seed 1, round 0, operation \d+: list"):
        this.run(500)
    for _, files in this.sides:
        files.clear()
