"""Mirrors guest/watch.py: a GPU that is not as it was attested ends the watch, and with it the machine."""

import asyncio
from pathlib import Path

import pytest

from guest import watch
from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.grants import Grants
from guest.machine import units
from guest.machine.tsm import TSM
from guest.machine.units import UnitState
from guest.record import Record
from guest.system import System
from guest.volumes import StateVolume
from strongroom.errors import MachineError, PolicyError, StrongroomError
from tests.fakes.gpus import ENDED, Machine


@pytest.fixture(autouse=True)
def _units_are_well(monkeypatch: pytest.MonkeyPatch) -> None:

    async def states(*names: str) -> list[UnitState]:
        return [UnitState(name, "active", "running", "success", "serving model", 0, 0, 0) for name in names]

    monkeypatch.setattr(units, "states", states)
    monkeypatch.setattr(watch, "PERIOD", 0.0)


def system(machine: Machine, folder: Path) -> System:
    return System(
        seed=folder,
        engine_venv=folder,
        attester=Attester(TSM(folder)),
        gpus=machine.gpus(),
        grants=Grants(),
        record=Record(folder / "boot.json"),
        applications=Applications(Attester(TSM(folder))),
        broker=KeyBroker(Attester(TSM(folder))),
    )


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
    guest = system(machine, tmp_path)

    beats: list[str] = []

    def beat(state: str) -> None:  # what systemd is told once all is found well; then something happens
        beats.append(state)
        machine.double.set(**change)
        if not change:
            machine.holders = [ENDED]

    monkeypatch.setattr(watch, "notify", beat)

    async def serving() -> None:
        await guest.gpus.admit(2, tee="snp")
        await guest.gpus.let_in(await guest.gpus.attest(bytes(32)))
        await watch.keep_watch(guest)

    with pytest.raises(kind, match=why):
        asyncio.run(serving())
    assert beats == ["WATCHDOG=1"] and machine.double.calls[-1] == "set-ready 0"


VOLUME = StateVolume(name="state", source="/srv/state", key="kbs:///a/b/c")


class Seen:
    """What systemd says of the volume's unit, one look after another; the parts that serve are well."""

    def __init__(self, *looks: UnitState) -> None:
        self.looks = list(looks)

    async def states(self, *names: str) -> list[UnitState]:
        assert names[-1] == VOLUME.unit
        if not self.looks:
            raise asyncio.CancelledError
        well = [UnitState(name, "active", "", "success", "serving model", 0, 0, 0) for name in names[:-1]]
        return [*well, self.looks.pop(0)]


def unit(active: str, status: str, restarts: int = 0, result: str = "success") -> UnitState:
    return UnitState(VOLUME.unit, active, "", result, status, restarts, 8, 0)


@pytest.mark.guarantee("G10")
def test_a_volume_that_is_gone_is_told_once_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = unit("failed", "store: stale file handle", 20, "start-limit-hit")
    seen = Seen(
        unit("active", "serving state, writable"),
        unit("activating", "", 1),
        unit("active", "serving state, writable; the store is full", 1),
        gone,
        gone,
    )
    monkeypatch.setattr(units, "states", seen.states)
    beats: list[str] = []
    monkeypatch.setattr(watch, "notify", beats.append)
    guest = system(machine, tmp_path)
    told: list[object] = []
    note = guest.record.note

    def noted(**facts: object) -> None:
        note(**facts)
        told.append(guest.record.content["units"][VOLUME.unit])

    monkeypatch.setattr(guest.record, "note", noted)

    async def serving() -> None:
        await guest.gpus.admit(2, tee="snp")
        await guest.gpus.let_in(await guest.gpus.attest(bytes(32)))
        await watch.keep_watch(guest, [VOLUME])

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(serving())
    assert len(beats) == 5
    assert told == [
        {"state": "active", "restarts": 0, "status": "serving state, writable"},
        {"state": "activating", "restarts": 1, "status": ""},
        {"state": "active", "restarts": 1, "status": "serving state, writable; the store is full"},
        {"state": "failed", "restarts": 20, "status": "store: stale file handle"},
    ]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "store: stale file handle (strongroom-live@state.service is failed" in said[0]


@pytest.mark.guarantee("G10")
def test_the_engines_network_is_looked_at_once_it_runs(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, tmp_path: Path
) -> None:
    """What systemd has just forked has a process id, and is not yet in its namespace."""
    rounds = iter(["activating", "activating", "active"])

    async def states(*names: str) -> list[UnitState]:
        active = next(rounds)
        return [UnitState(name, active, "start", "success", "serving model", 1, 0, 435) for name in names]

    def refuse(pid: int) -> None:
        raise MachineError(f"network of process {pid}: has eth0, lo, want lo alone")

    monkeypatch.setattr(units, "states", states)
    monkeypatch.setattr(watch, "check_sealed", refuse)
    with pytest.raises(MachineError, match="network of process 435"):
        asyncio.run(watch.keep_watch(system(machine, tmp_path)))
    assert next(rounds, None) is None
