"""A model that a person seals with commands: the fixture of make_source() in the current directory."""

import json
from pathlib import Path
from typing import Any

import pytest

from strongroom.cli.main import main
from tests.fakes.sealed import make_source


def make_model(at: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in `at`/model; `at` becomes the current directory."""
    make_source(at / "model")
    monkeypatch.chdir(at)
    return at / "model"


def seal(*more: str, source: str = "model", dest: str = "sealed", key: str = "m.key", epoch: int = 3) -> int:
    """The exit code of `strongroom seal`; --name is tiny."""
    return main(["seal", source, dest, "--epoch", str(epoch), "--name", "tiny", "--key-out", key, *more])


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON that a successful command prints."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def flip(path: Path, *positions: int) -> None:
    """Change one bit of each byte at these positions."""
    data = bytearray(path.read_bytes())
    for position in positions:
        data[position] ^= 1
    path.write_bytes(data)
