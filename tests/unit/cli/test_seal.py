"""Mirrors strongroom/cli/seal.py and scrub.py, as a person runs them."""

import json
import os
import stat
from pathlib import Path

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.main import main
from tests.fakes.sealed import CHUNK, make_source


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_source(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def seal(*more: str, source: str = "model", dest: str = "sealed", key: str = "m.key") -> int:
    return main(["seal", source, dest, "--epoch", "3", "--name", "tiny", "--key-out", key, *more])


@pytest.mark.usefixtures("model")
def test_seal_then_scrub(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("--chunk-kib", "64") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("sealed   tiny epoch 3: 6 files, ")
    key = VolumeKey.parse(Path("m.key").read_bytes())
    assert out[1:] == [f"root     {key.root.hex()}", "key      m.key"]
    assert key.epoch == 3
    assert stat.S_IMODE(os.stat("m.key").st_mode) == 0o600
    assert main(["scrub", "sealed", "--key", "m.key"]) == 0
    assert (
        capsys.readouterr().out == f"genuine  tiny epoch 3: 16 chunks, 917704 bytes, root {key.root.hex()}\n"
    )


@pytest.mark.usefixtures("model")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("--json") == 0
    result = json.loads(capsys.readouterr().out)
    root = VolumeKey.parse(Path("m.key").read_bytes()).root.hex()
    assert result == {
        "name": "tiny",
        "epoch": 3,
        "root": root,
        "files": 6,
        "bytes": 917_726,
        "key": "m.key",
    }
    assert main(["scrub", "sealed", "--key", "m.key", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "tiny",
        "epoch": 3,
        "root": root,
        "chunks": 8,
        "damaged": [],
    }


@pytest.mark.guarantee("G4")
@pytest.mark.usefixtures("model")
def test_scrub_names_what_is_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("--chunk-kib", "64") == 0
    path = next(path for path in Path("sealed/objects").iterdir() if path.stat().st_size == 4 * CHUNK)
    data = bytearray(path.read_bytes())
    data[CHUNK + 1] ^= 1
    data[-1] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert main(["scrub", "sealed", "--key", "m.key"]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"object {path.name}: chunk 1: tag does not verify",
        f"object {path.name}: chunk 3: tag does not verify",
        "strongroom: sealed: 2 of 16 chunks or files are damaged, want none",
    ]


@pytest.mark.guarantee("G16")
def test_refusals_leave_nothing_behind(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(model / "fifo")
    assert seal() == 3
    assert "is a FIFO" in capsys.readouterr().err
    (model / "fifo").unlink()
    Path("taken").mkdir()
    Path("taken/file").write_bytes(b"")
    assert seal(dest="taken") == 3
    assert capsys.readouterr().err == "strongroom: taken: not empty, want an empty or absent directory\n"
    Path("old.key").write_bytes(b"precious")
    assert seal(key="old.key") == 3
    assert "old.key: exists" in capsys.readouterr().err
    assert Path("old.key").read_bytes() == b"precious"
    assert sorted(os.listdir()) == ["model", "old.key", "taken"]


@pytest.mark.guarantee("G16")
@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--epoch", "0"], "--epoch: got 0, want a whole number 1..2**53-1"),
        (["--name", "a b"], "--name: manifest: name is 'a b', want 1..128 letters, digits or ._/:+-"),
    ],
)
def test_arguments_are_checked_first(more: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal(*more) == 3
    assert capsys.readouterr().err == f"strongroom: {line}\n"
    assert os.listdir() == ["model"]


@pytest.mark.guarantee("G11")
@pytest.mark.usefixtures("model")
def test_a_broken_key_file_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    text = Path("m.key").read_text()
    Path("m.key").write_text(text.replace('"key":"', '"key":"!'))
    capsys.readouterr()
    assert main(["scrub", "sealed", "--key", "m.key"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("strongroom: m.key: volume key: ")
    assert json.loads(text)["key"] not in err


@pytest.mark.guarantee("G5")
@pytest.mark.usefixtures("model")
def test_scrub_wants_the_epoch_of_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    Path("m.key").write_text(Path("m.key").read_text().replace('"epoch":3', '"epoch":4'))
    capsys.readouterr()
    assert main(["scrub", "sealed", "--key", "m.key"]) == 6
    assert capsys.readouterr().err == "strongroom: manifest: epoch is 3, want 4\n"
