"""Mirrors guest/record.py."""

import asyncio
import json
from pathlib import Path

import pytest

from guest.record import Record, card, sentence
from strongroom.errors import PolicyError


async def _value() -> int:
    return 7


async def _refuse() -> int:
    raise PolicyError("userdata: found a, want b")


async def _leak() -> int:
    raise RuntimeError("key is 0123456789abcdef")


def test_stages_are_on_disk_as_they_end(tmp_path: Path) -> None:
    record = Record(tmp_path / "boot.json")
    assert asyncio.run(record.stage("measure", _value())) == 7
    record.note(measurement="ab" * 48, words="a-b", model={"name": "m", "epoch": 2, "root": "cd" * 32})
    content = json.loads((tmp_path / "boot.json").read_text())
    assert content["state"] == "booting"
    assert [(s["name"], s["outcome"]) for s in content["stages"]] == [("measure", "ok")]
    assert "measurement" in card(content)


@pytest.mark.guarantee("G15")
def test_a_failed_stage_leaves_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path / "boot.json")
    with pytest.raises(PolicyError) as caught:
        asyncio.run(record.stage("measure", _refuse()))
    record.end("failed", caught.value)
    content = json.loads((tmp_path / "boot.json").read_text())
    assert content["state"] == "failed"
    assert content["error"] == content["stages"][0]["error"] == "userdata: found a, want b"
    assert "because     userdata: found a, want b" in capsys.readouterr().out


@pytest.mark.guarantee("G11")
def test_foreign_errors_are_named_but_never_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(tmp_path / "boot.json")
    with pytest.raises(RuntimeError):
        asyncio.run(record.stage("keys", _leak()))
    assert "0123456789abcdef" not in (tmp_path / "boot.json").read_text() + capsys.readouterr().out
    assert sentence(RuntimeError("secret")) == "unexpected RuntimeError"


def test_no_sentence_moves_the_console() -> None:
    said = sentence(PolicyError("broker: \x1b[2J\u202eno\r\nmeasure: ok" + "!" * 10_000))
    assert said.startswith("broker: [2J no measure: ok!") and said.isprintable() and len(said) == 2000


def test_engine_time_is_not_the_agents(tmp_path: Path) -> None:
    record = Record(tmp_path / "boot.json")
    for name in ("measure", "serve"):
        asyncio.run(record.stage(name, _value()))
    assert {"agent_ms", "engine_ms"} <= record.content.keys()
