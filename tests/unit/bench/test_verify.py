"""Mirrors bench/verify.py: what is measured is what it says, also without any vectors."""

import json
from pathlib import Path

import pytest

from bench import verify as bench
from strongroom.verify import amd_chain, nvidia_chain, ocsp


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "COLD_ROUNDS", 2)


def test_eight_different_gpus_are_measured_warm_and_cold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    (tmp_path / "index.json").write_text('{"set": "none", "generated": "2026-11-20", "vectors": []}')
    assert bench.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:6] == ["kind", "warm", "ms", "fastest", "slowest", "cold"]
    (name,) = (figures := json.loads(out[-1])["figures"])
    assert name == "composite-distinct"
    assert figures[name].keys() == {"median", "fastest", "cold", "target"}


def test_cold_is_with_nothing_remembered() -> None:
    bench._distinct()()
    memories = [amd_chain._check_issued, nvidia_chain.certificate, nvidia_chain.check_issued, ocsp._load]
    assert all(memory.cache_info().currsize for memory in memories)
    bench.forget()
    assert not any(memory.cache_info().currsize for memory in memories)
