"""Mirrors guest/__main__.py: what the agent does when one of its own services ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from guest import __main__ as agent
from guest.__main__ import _stop_parts, alongside
from guest.foreign import ForeignEvidence
from guest.grants import Grants
from guest.machine import units
from guest.record import Record
from strongroom.errors import MachineError
from strongroom.receipts import legacy
from strongroom.receipts.keys import DoorKeys


async def fails() -> None:
    raise MachineError("listener: gone")


async def lasts(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("service")


@pytest.mark.guarantee("G10")
def test_a_service_that_fails_ends_what_runs_inside() -> None:
    async def live() -> None:
        async with alongside(fails(), lasts(ended)):
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("inside")

    ended: list[str] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(live())
    assert [str(error) for error in caught.value.exceptions] == ["listener: gone"]
    assert sorted(ended) == ["inside", "service"]


def test_services_outlive_what_runs_inside_and_then_end() -> None:
    async def live() -> None:
        async with alongside(lasts(ended)):
            await asyncio.sleep(0)
            ended.append("inside")

    ended: list[str] = []
    asyncio.run(live())
    assert ended == ["inside", "service"]


def test_a_stop_from_outside_is_a_stop() -> None:
    async def live() -> None:
        me = asyncio.current_task()
        assert me is not None
        async with alongside(lasts([])):
            me.cancel()
            await asyncio.sleep(3600)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(live())


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    ("error", "killed"),
    [(MachineError("gone"), True), (asyncio.CancelledError(), False), (None, False)],
    ids=["failure", "stop", "end"],
)
def test_what_serves_is_stopped_before_what_is_written_to(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None, killed: bool
) -> None:
    done: list[tuple[str, ...]] = []

    async def kill(*names: str) -> None:
        done.append(("kill", *names))

    async def stop(*names: str) -> None:
        done.append(("stop", *names))
        raise MachineError("systemctl: slow")  # what comes after is stopped all the same

    monkeypatch.setattr(units, "kill", kill)
    monkeypatch.setattr(units, "stop", stop)
    asyncio.run(_stop_parts(None, error, None))
    parts = ("strongroom-fs.service", "strongroom-engine.service", "strongroom-proxy.service")
    assert done == [
        *([("kill", *parts)] if killed else []),
        ("stop", "strongroom-serving.target", *reversed(parts)),
        ("stop", "strongroom-live@*.service"),
    ]


def test_reports_of_others_name_the_keys_that_the_door_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, granted = list[DoorKeys](), dict[str, bytes]()

    class Watched(Grants):
        def grant(self, unit: str, name: str, value: bytes) -> None:
            granted[f"{unit} {name}"] = value

    def foreign(*args: Any, keys: DoorKeys, **more: Any) -> ForeignEvidence:
        known.append(keys)
        made = ForeignEvidence(*args, keys=keys, **more)
        assert not made.gpus  # before userdata is known, and for most also after
        return made

    monkeypatch.setattr(agent, "Grants", Watched)
    monkeypatch.setattr(agent, "ForeignEvidence", foreign)
    args = agent._parser().parse_args(["--tsm", str(tmp_path), "--collateral", str(tmp_path)])
    with pytest.raises(MachineError, match="no socket called credentials"):
        asyncio.run(agent._live(args, Record(tmp_path / "boot.json"), {}))
    (spoken_for,) = known
    (secret,) = granted.values()
    assert [*granted] == ["strongroom-proxy.service door-secret"]
    assert legacy.address(DoorKeys.from_secret(secret).receipt) == legacy.address(spoken_for.receipt)
