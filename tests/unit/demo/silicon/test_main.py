"""Mirrors demo/silicon/__main__.py up to the mount; the mounted whole is tests/integration/test_silicon.py."""

from pathlib import Path

import pytest

from demo.silicon.__main__ import Launch, _parser, main
from demo.silicon.mint import DEBUG, POLICY
from strongroom.evidence.snp import TCB
from strongroom.host.tree import measure

HOST_DATA = "ab" * 32


def words(tmp_path: Path, *more: str) -> list[str]:
    return ["serve", "--mount", str(tmp_path / "m"), "--state", str(tmp_path / "s"), *more]


def launch(tmp_path: Path, *more: str) -> Launch:
    return Launch.from_args(_parser().parse_args([*words(tmp_path, "--host-data", HOST_DATA), *more]))


def test_the_launcher_measures_the_trees_itself(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "units").mkdir()
    trees = [str(tmp_path / "code"), f"systemd={tmp_path / 'units'}"]
    decided = launch(tmp_path, "--image", trees[0], "--image", trees[1])
    assert decided.measurement == measure(trees)
    assert decided.host_data == bytes.fromhex(HOST_DATA)
    assert decided.policy == POLICY


def test_the_attack_flags(tmp_path: Path) -> None:
    (tmp_path / "claimed").write_text("cd" * 48 + "\n")
    flags = ["--measurement-file", str(tmp_path / "claimed"), "--debug-policy", "--tcb", "1,0,8,20"]
    decided = launch(tmp_path, *flags)
    assert decided.measurement == b"\xcd" * 48
    assert decided.policy == POLICY | DEBUG
    assert decided.tcb == TCB(bootloader=1, tee=0, snp=8, microcode=20)


@pytest.mark.parametrize(
    ("more", "code", "why"),
    [
        (["--host-data", HOST_DATA], 3, "either --image or --measurement-file"),
        (["--host-data", HOST_DATA, "--image", "x", "--measurement-file", "y"], 3, "either --image or"),
        (["--host-data", "AB" * 32, "--image", "."], 3, "want 64 lowercase hex digits"),
        (["--host-data", "ab", "--image", "."], 3, "--host-data: got 'ab'"),
        (["--host-data", HOST_DATA, "--image", "/absent"], 8, "/absent: no such file"),
        (["--host-data", HOST_DATA, "--measurement-file", "/absent"], 3, "cannot be read"),
        (["--host-data", HOST_DATA, "--image", ".", "--tcb", "1,2,3"], 3, "want four numbers 0..255"),
        (["--host-data", HOST_DATA, "--image", ".", "--tcb", "1,2,3,256"], 4, "microcode is 256"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    why: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(words(tmp_path, *more)) == code
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()
