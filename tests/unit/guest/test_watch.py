"""Mirrors guest/watch.py: a GPU that is not as it was attested ends the watch, and with it the machine."""

import asyncio
from pathlib import Path

import pytest

from guest import watch
from guest.applications import Applications
from guest.attester import Attester
from guest.grants import Grants
from guest.machine import units
from guest.machine.tsm import TSM
from guest.machine.units import UnitState
from guest.record import Record
from guest.system import System
from strongroom.errors import MachineError, PolicyError, StrongroomError
from tests.fakes.gpus import ENDED, Machine


@pytest.fixture(autouse=True)
def _units_are_well(monkeypatch: pytest.MonkeyPatch) -> None:

    async def states(*names: str) -> list[UnitState]:
        return [UnitState(name, "active", "running", "success", "serving model", 0, 0, 0) for name in names]

    monkeypatch.setattr(units, "states", states)
    monkeypatch.setattr(watch, "PERIOD", 0.0)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        ({"cc": 0}, PolicyError, "confidential computing is off"),
        ({"ready": 0}, PolicyError, "ready state is 0, want 1"),
        ({}, MachineError, "ended, and with it the session that was attested"),
    ],
)
def test_the_watch_ends_with_the_gpus(
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    tmp_path: Path,
    change: dict[str, int],
    kind: type[StrongroomError],
    why: str,
) -> None:
    gpus = machine.gpus()
    guest = System(
        seed=tmp_path,
        engine_venv=tmp_path,
        attester=Attester(TSM(tmp_path)),
        gpus=gpus,
        grants=Grants(),
        record=Record(tmp_path / "boot.json"),
        applications=Applications(Attester(TSM(tmp_path))),
    )

    beats: list[str] = []

    def beat(state: str) -> None:  # what systemd is told once all is found well; then something happens
        beats.append(state)
        machine.double.set(**change)
        if not change:
            machine.holders = [ENDED]

    monkeypatch.setattr(watch, "notify", beat)

    async def serving() -> None:
        await gpus.admit(2, tee="snp")
        await gpus.let_in(await gpus.attest(bytes(32)))
        await watch.keep_watch(guest)

    with pytest.raises(kind, match=why):
        asyncio.run(serving())
    assert beats == ["WATCHDOG=1"] and machine.double.calls[-1] == "set-ready 0"
