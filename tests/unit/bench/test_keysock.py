"""Mirrors bench/keysock.py: every way to call is measured, and the last line is one JSON object."""

import importlib.util
import json
import os

import pytest

from bench import keysock


def test_every_way_to_call_has_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("RAW_CALLS", 160), ("COLD_CALLS", 20), ("SDK_CALLS", 20), ("WARM_UP", 5)):
        monkeypatch.setattr(keysock, name, count)
    cores = os.sched_getaffinity(0)
    assert keysock.main() == 0
    assert os.sched_getaffinity(0) == cores
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = {"raw", "raw-cold", "own", "raw-new", "raw-many"}
    if importlib.util.find_spec("dstack_sdk"):
        wanted |= {"sdk", "sdk-async"}
    assert found["bench"] == "keysock"
    assert found["figures"].keys() == wanted
    for figure in found["figures"].values():
        assert 0 < figure["p50_ms"] <= figure["p99_ms"]
        assert figure["calls_per_s_per_core"] > 0
