"""Mirrors host/brokerage/decisions.py."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.broker.audit import turned_away
from strongroom.broker.sessions import Sessions
from strongroom.broker.tally import STRANGER
from strongroom.cli.broker_counts import counts_of
from strongroom.errors import MachineError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.decisions import Decisions
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.metrics import Metrics
from strongroom.host.brokerage.recorder import Recorder
from tests.fakes.house import NOW, decision, house

BURST = STRANGER.network.burst


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "b") as one:
        yield one


def told(made: House) -> Counter[str]:
    return Counter(json.loads(line)["verdict"] for line in ledger.read(made.database))


def decisions_of(made: House) -> tuple[Decisions, Recorder, Metrics]:
    recorder, metrics = Recorder(made, lambda line: None), counts_of(made, Sessions(), ())
    return Decisions(recorder, metrics, lambda: NOW), recorder, metrics


def test_a_flood_is_lines_up_to_a_number_and_then_one(made: House) -> None:
    async def flood() -> str:
        decisions, recorder, metrics = decisions_of(made)
        for n in range(500):
            await decisions.record(turned_away("192.0.2.1", NOW, f"garbage {n}"))
        await decisions.record(decision())
        assert told(made) == {"administered": 1, "turned-away": BURST, "released": 1}
        await decisions.summarise()
        recorder.close()
        return metrics.text()

    text = asyncio.run(flood())
    assert told(made)["turned-away"] == BURST + 1
    last = json.loads(ledger.read(made.database)[-1])
    assert last["rule"] == f"{500 - BURST} more refusals in 1 s: {500 - BURST} turned-away; last: garbage 499"
    assert f"strongroom_broker_summarised_total {500 - BURST}" in text
    assert f'strongroom_broker_decisions_total{{verdict="turned-away"}} {BURST + 1}' in text
    assert made.verify_audit().number == 1 + BURST + 2


def test_a_thread_waits_for_its_line_and_a_note_for_nobody(made: House) -> None:
    async def some() -> None:
        decisions, recorder, _ = decisions_of(made)
        await asyncio.to_thread(decisions.keep, decision())
        assert told(made)["released"] == 1
        decisions.note(turned_away("192.0.2.1", NOW, "too many connections"))
        recorder.close()

    asyncio.run(some())
    assert told(made)["turned-away"] == 1


def test_what_cannot_be_kept_is_no_decision(made: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> list[bytes]:
        raise MachineError("broker database: database or disk is full")

    async def some() -> None:
        decisions, recorder, _ = decisions_of(made)
        monkeypatch.setattr(made, "record", full)
        with pytest.raises(MachineError, match="disk is full"):
            await decisions.record(decision())
        with pytest.raises(MachineError, match="disk is full"):
            await asyncio.to_thread(decisions.keep, decision())
        for _ in range(BURST + 5):
            decisions.note(turned_away("192.0.2.1", NOW, "x"))
        await decisions.summarise()  # a full disk ends no server
        monkeypatch.undo()
        await decisions.record(decision())
        recorder.close()

    asyncio.run(some())
    assert told(made) == {"administered": 1, "released": 1}


def test_a_summary_comes_by_itself(made: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def some() -> None:
        decisions, recorder, _ = decisions_of(made)
        for _ in range(BURST + 5):
            await decisions.record(turned_away("192.0.2.1", NOW, "x"))
        came, real = asyncio.Event(), decisions.summarise

        async def summarise() -> None:
            await real()
            came.set()

        monkeypatch.setattr(decisions, "summarise", summarise)
        task = asyncio.create_task(decisions.run(0.01))
        async with asyncio.timeout(20):
            await came.wait()
        task.cancel()
        await asyncio.wait([task])
        recorder.close()

    asyncio.run(some())
    assert told(made)["turned-away"] == BURST + 1
