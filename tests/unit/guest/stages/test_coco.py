"""Mirrors guest/stages/coco.py: off unless asked for, and then with what this boot knows."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.silicon.vtpm import vtpm
from guest.aael import AAELLog, PCRRegister
from guest.coco.plan import PLAN, UNIT, Plan
from guest.machine import units
from guest.resources import Resources
from guest.stages import coco as stage
from guest.stages.measure import Workload
from guest.stages.mount import Volumes
from guest.system import System
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError
from tests import need
from tests.unit.guest.coco.test_userdata import read
from tests.unit.guest.test_initdata import guest

RULES = {"rules": [{"uid": 1000, "resources": ["*"]}]}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    (tmp_path / "seed").mkdir()
    made = guest(tmp_path / "seed")
    started: list[str] = []

    async def start(unit: str, *, timeout: float) -> None:
        assert made.grants._granted[unit, PLAN]
        started.append(unit)

    monkeypatch.setattr(units, "start", start)
    monkeypatch.setattr(stage, "DIRECTORY", tmp_path / "aael")
    made.record.note(started=started)
    return replace(made, resources=Resources(made.attester))


def volumes(coco: Any, **changes: Any) -> Volumes:
    config = read(coco) if coco is not None else replace(read(RULES), coco=None)
    workload = Workload(config=replace(config, **changes), plan=None, measurement=bytes(48))  # type: ignore[arg-type]
    return Volumes(workload=workload, root="", epoch=1, path=Path())


def opened(system: System, coco: Any, **changes: Any) -> None:
    asyncio.run(stage.open_coco(system, volumes(coco, **changes)))


def test_nothing_happens_unless_userdata_asks(system: System) -> None:
    opened(system, None)
    assert system.record.content["started"] == [] and system.record.content["stages"] == []


def test_the_unit_gets_its_plan_and_the_agent_its_rules(system: System) -> None:
    opened(system, {**RULES, "port": 8006})
    assert system.record.content["started"] == [UNIT]
    assert system.record.content["coco"] == {"port": 8006, "eventlog": False}
    plan = Plan.parse(system.grants._granted[UNIT, PLAN].reveal())
    assert plan.port == 8006 and plan.rules.uids[1000].resources == ("*",)
    resources = system.resources
    assert resources is not None and resources._rules == plan.rules and resources._log is None
    assert resources._own == {ResourceURI.parse("kbs:///default/model/tiny")}


def test_the_root_of_local_keys_is_this_machines_own_too(system: System) -> None:
    keys = type("Keys", (), {"resource": "kbs:///default/keys/root"})()
    opened(system, RULES, keys=keys)
    resources = system.resources
    assert resources is not None
    assert ResourceURI.parse("kbs:///default/keys/root") in resources._own


@pytest.mark.parametrize("coco", [None, RULES], ids=["off", "on"])
def test_the_session_with_the_broker_is_kept_while_somebody_may_ask(system: System, coco: Any) -> None:
    config = read(RULES)

    async def boot() -> bool:
        async with system.broker as broker:
            before = await broker.session(config.broker)
            await stage.open_coco(system, volumes(coco))
            return before is await broker.session(config.broker)

    assert asyncio.run(boot()) is (coco is not None)


def test_programs_ask_over_the_session_of_the_boot(system: System) -> None:
    config, resources = read(RULES), system.resources
    assert resources is not None

    async def boot() -> None:
        async with system.broker as broker:
            before = await broker.session(config.broker)
            await stage.open_coco(system, volumes(RULES))
            assert await resources._connected() is before

    asyncio.run(boot())


def test_what_cannot_be_had_ends_the_boot(system: System) -> None:
    with pytest.raises(ConfigError, match=r"coco\.eventlog: got true, and this machine has no vtpm"):
        opened(system, {**RULES, "eventlog": True})
    with pytest.raises(ConfigError, match="this machine has no socket for it"):
        opened(replace(system, resources=None), RULES)
    assert system.record.content["started"] == []


@pytest.fixture
def tpm(socket_dir: Path) -> Iterator[Path]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        yield path


def test_the_log_of_their_form_has_what_the_boot_did(system: System, tpm: Path, tmp_path: Path) -> None:
    asyncio.run(system.attester.extend("userdata", bytes(32)))
    opened(replace(system, tpm=tpm), {**RULES, "eventlog": True})
    log = AAELLog.open(tmp_path / "aael", PCRRegister(tpm))
    assert [record.entry.operation for record in log.records] == ["userdata"]
