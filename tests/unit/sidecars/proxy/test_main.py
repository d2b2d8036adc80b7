"""Mirrors sidecars/proxy/__main__.py."""

import json
from pathlib import Path

import pytest

from sidecars.proxy import __main__ as daemon
from sidecars.proxy.engine.installed import Listing
from tests import ROOT, need
from tests.fakes.vllm import LISTING


@pytest.mark.guarantee("G14")
def test_a_defect_of_the_process_is_told_as_little(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise KeyError("correct horse battery staple")

    monkeypatch.setattr(daemon, "read_credential", fail)
    assert daemon.main() == 1
    assert "defect: KeyError at test_main.py:" in caplog.text
    assert "correct" not in caplog.text + "".join(capfd.readouterr())


def engine_that_prints(directory: Path, listing: str) -> Path:
    """A Python whose only answer is this listing."""
    (directory / "listing").write_text(listing)
    (directory / "python").write_text(f"#!/bin/sh\nexec cat {directory}/listing\n")
    (directory / "python").chmod(0o700)
    return directory / "python"


def check(python: Path) -> int:
    return daemon.main(["--check-engine", "--engine-python", str(python)])


@pytest.mark.guarantee("G17")
def test_the_table_of_an_installed_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(engine_that_prints(tmp_path, LISTING.read_text())) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["engine", "0.32.0"]
    assert ["served", "POST", "/v1/completions"] in lines
    assert ["closed", "POST", "/invocations"] in lines
    assert ["refused", "/v1/chat/completions", "kv_transfer_params"] in lines
    assert lines[-1] == "every route and field is known".split()


@pytest.mark.guarantee("G16")
@pytest.mark.guarantee("G17")
def test_an_unknown_route_ends_the_table_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = json.loads(LISTING.read_text())
    listing["routes"].append("POST /v1/teleport")
    assert check(engine_that_prints(tmp_path, json.dumps(listing))) == 7
    shown = capsys.readouterr()
    assert "UNKNOWN  POST /v1/teleport" in shown.out
    assert shown.err == "strongroom-proxy: engine: unknown route POST /v1/teleport in version 0.32.0\n"


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("listing", ["", "[]", '{"version": 1}', '{"version":"0.32.0","routes":[]}'])
def test_a_listing_that_is_none_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listing: str
) -> None:
    assert check(engine_that_prints(tmp_path, listing)) == 7
    assert capsys.readouterr().err.count("\n") == 1


def test_no_engine_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "python") == 8
    assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.guarantee("G17")
def test_the_engine_that_is_installed_here_is_known_and_is_the_one_of_the_vector(
    capsys: pytest.CaptureFixture[str],
) -> None:
    python = ROOT / "build" / "engine" / "bin" / "python"
    need(python.exists(), "no build/engine: run ./setup.sh all")
    assert check(python) == 0
    assert "UNKNOWN" not in capsys.readouterr().out
    found = Listing.of(python)
    kept = json.loads(LISTING.read_text())
    assert (found.version, sorted(found.routes)) == (kept["version"], sorted(kept["routes"]))
    assert found.description == kept["openapi"]
