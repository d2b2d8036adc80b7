"""Mirrors strongroom/cli/check.py and volume.py, as a person runs them."""

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.main import main
from tests.fakes.model import flip, make_model, seal, told
from tests.fakes.sealed import CHUNK

pytestmark = pytest.mark.usefixtures("sealed")


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    make_model(tmp_path, monkeypatch)
    assert seal("--chunk-kib", "64") == 0
    capsys.readouterr()
    return tmp_path / "sealed"


def root() -> str:
    return VolumeKey.parse(Path("m.key").read_bytes()).root.hex()


def victim() -> Path:
    return next(path for path in Path("sealed/objects").iterdir() if path.stat().st_size == 4 * CHUNK)


def test_a_genuine_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sealed", "--key", "m.key"]) == 0
    assert capsys.readouterr() == (f"genuine  tiny epoch 3: 16 chunks, 917704 bytes, root {root()}\n", "")
    assert main(["check", "sealed", "--key", "m.key", "--no-sha256", "--workers", "1"]) == 0


def test_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sealed", "--key", "m.key", "--sample", "40%"]) == 0
    assert "epoch 3: 8 of 16 chunks, " in capsys.readouterr().out
    assert main(["check", "sealed", "--key", "m.key", "--sample", "0.001%"]) == 0
    assert "epoch 3: 3 of 16 chunks, " in capsys.readouterr().out  # of each object at least one


@pytest.mark.guarantee("G4")
def test_a_sample_of_all_finds_all(capsys: pytest.CaptureFixture[str]) -> None:
    flip(victim(), CHUNK)
    assert main(["check", "sealed", "--key", "m.key", "--sample", "100%"]) == 5
    assert "1 of 16 chunks or files are damaged" in capsys.readouterr().err


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("share", ["0%", "101%", "1", "-1%", "1e1%", "%", "1.%"])
def test_a_sample_is_a_share(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sealed", "--key", "m.key", f"--sample={share}"]) == 3
    assert capsys.readouterr().err == (
        f"strongroom: --sample: got {share!r}, want a share such as 1%, above 0% and at most 100%\n"
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sealed/objects/" + "00" * 16).write_bytes(b"left")
    assert told(capsys, "check", "sealed", "--key", "m.key") == {
        "name": "tiny",
        "epoch": 3,
        "root": root(),
        "objects": 3,
        "chunks": 16,
        "checked": 16,
        "damaged": [],
        "leftovers": {"files": 1, "bytes": 4},
    }
    assert main(["check", "sealed", "--key", "m.key"]) == 0
    assert "unused   1 files, 4 bytes: `strongroom prune` removes them" in capsys.readouterr().out


@pytest.mark.guarantee("G4")
def test_what_is_damaged_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    path = victim()
    flip(path, CHUNK + 1, 4 * CHUNK - 1)
    lines = [f"object {path.name}: chunk {n}: tag does not verify" for n in (1, 3)]
    assert main(["check", "sealed", "--key", "m.key"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [*lines, "strongroom: sealed: 2 of 16 chunks or files are damaged, want none"]
    assert main(["check", "sealed", "--key", "m.key", "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["damaged"] == lines


@pytest.mark.guarantee("G11")
def test_a_broken_key_file_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("m.key").read_text()
    Path("m.key").write_text(text.replace('"key":"', '"key":"!'))
    assert main(["check", "sealed", "--key", "m.key"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("strongroom: m.key: volume key: ")
    assert json.loads(text)["key"] not in err


@pytest.mark.guarantee("G11")
def test_a_key_file_others_may_read(capsys: pytest.CaptureFixture[str]) -> None:
    os.chmod("m.key", 0o640)
    assert main(["check", "sealed", "--key", "m.key"]) == 3
    assert capsys.readouterr().err == (
        "strongroom: m.key: mode is 0640, want 0600: others may read this key\n"
    )


def test_a_key_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path("m.key").read_bytes())))
    assert main(["check", "sealed", "--key", "-"]) == 0


@pytest.mark.guarantee("G5")
def test_the_epoch_is_that_of_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.key").write_text(Path("m.key").read_text().replace('"epoch":3', '"epoch":4'))
    assert main(["check", "sealed", "--key", "m.key"]) == 6
    assert capsys.readouterr().err == "strongroom: manifest: epoch is 3, want 4\n"
