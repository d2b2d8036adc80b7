"""Mirrors guest/stages/sockets.py: where the root is from, what is measured of it, and what is handed over."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import pytest

from demo.silicon.vtpm import vtpm
from guest import broker, config
from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.grants import Grants
from guest.keysock.plan import PLAN, ROOT, UNIT, Plan, app_keys
from guest.record import Record
from guest.stages.keys import Keys
from guest.stages.sockets import open_sockets
from guest.system import System
from guest.userdata import Userdata
from strongroom.errors import ConfigError, FormatError
from strongroom.host.secret import Secret
from tests import need
from tests.fakes.keysock import FakeTSM
from tests.unit.guest.test_config import good, text

RULES = [{"unit": "api.service", "paths": ["db/"]}]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    started: list[str] = []

    async def start(unit: str, *, timeout: float) -> None:
        started.append(unit)

    monkeypatch.setattr("guest.machine.units.start", start)
    attester = Attester(FakeTSM())
    return System(
        seed=tmp_path,
        engine_venv=tmp_path,
        attester=attester,
        gpus=None,  # type: ignore[arg-type]
        grants=Grants(),
        record=Record(tmp_path / "boot.json"),
        applications=Applications(attester),
        broker=KeyBroker(attester),
    )


def opened(system: System, keys: Any) -> tuple[Plan, bytes]:
    """What the key socket is granted under a userdata with this section."""
    raw = text(good() | ({} if keys is None else {"keys": keys}))
    workload = SimpleNamespace(config=config.parse(Userdata.of(raw)))
    asyncio.run(open_sockets(system, Keys(workload=workload, key=bytes(32), release=None)))  # type: ignore[arg-type]
    take = system.grants._granted
    plan = Plan.parse(take[UNIT, PLAN].reveal())
    assert plan.userdata.encode() == raw
    return plan, take[UNIT, ROOT].reveal()


def event(system: System) -> Any:
    payload = system.attester.log.find("keys-root")
    return None if payload is None else json.loads(payload)


def test_without_a_section_there_is_no_root_and_no_event(system: System) -> None:
    plan, _ = opened(system, None)
    assert plan.origin is None and event(system) is None
    assert not system.applications.raw and not system.applications.events


def test_an_ephemeral_root_is_another_each_time_and_measured(system: System) -> None:
    plan, root = opened(system, {"root": "ephemeral", "epoch": 7, "rules": RULES, "app_id": "ab" * 20})
    assert plan.origin is not None and (plan.origin.kind, plan.origin.epoch) == ("ephemeral", 7)
    assert plan.app_id == b"\xab" * 20 and plan.rights.units["api.service"].paths == ("db/",)
    said = event(system)
    assert said["root"] == "ephemeral" and said["public"] == app_keys(root).app_root_public.hex()
    assert root.hex() not in json.dumps(said)


def test_only_what_a_rule_allows_is_allowed_at_the_agent(system: System) -> None:
    opened(system, {"root": "ephemeral", "strict": False, "rules": [{"uid": 0, "raw_quote": True}]})
    assert system.applications.raw and system.applications.events


class Session:
    """A broker that gives `secret`."""

    secret = bytes(range(32))
    asked: ClassVar[list[str]] = []

    def __init__(self, **settings: Any) -> None:
        self.broker_spki_sha256 = b"\5" * 32
        assert settings["url"] == "https://broker.example:8443"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def get(self, resource: object) -> Secret:
        self.asked.append(str(resource))
        return Secret(self.secret)


def test_a_root_of_the_broker_is_named_with_it(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "BrokerSession", Session)
    plan, root = opened(system, {"root": "broker", "resource": "kbs:///default/keys/root"})
    assert root == Session.secret and Session.asked == ["kbs:///default/keys/root"]
    said = event(system)
    assert (said["resource"], said["broker_spki_sha256"]) == ("kbs:///default/keys/root", "05" * 32)
    assert plan.origin is not None and plan.origin.provider == b"\5" * 32


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("secret", [b"", bytes(31), b"{}"])
def test_a_resource_that_is_no_root_ends_the_boot(
    system: System, monkeypatch: pytest.MonkeyPatch, secret: bytes
) -> None:
    monkeypatch.setattr(broker, "BrokerSession", type("Other", (Session,), {"secret": secret}))
    with pytest.raises(FormatError, match="keys root"):
        opened(system, {"root": "broker", "resource": "kbs:///default/keys/root"})
    assert event(system) is None


@pytest.fixture
def tpm(socket_dir: Path) -> Iterator[Path]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        yield path


@pytest.mark.guarantee("G2")
def test_a_root_of_the_vtpm_is_of_this_machine_and_these_rules(system: System, tpm: Path) -> None:
    here = replace(system, tpm=tpm)

    def root(keys: Any) -> bytes:
        again = replace(here, attester=Attester(FakeTSM()), grants=Grants())
        return opened(again, keys)[1]

    first = root({"root": "vtpm", "rules": RULES})
    assert first == root({"root": "vtpm", "rules": RULES})
    assert first == root({"root": "vtpm", "rules": RULES, "epoch": 2})
    assert first != root({"root": "vtpm", "rules": [{"unit": "api.service", "paths": ["*"]}]})
    assert first != root({"root": "vtpm", "rules": [*RULES, {"unit": "evil.service", "paths": ["db/"]}]})


def test_there_must_be_a_tpm(system: System) -> None:
    with pytest.raises(ConfigError, match=r"strongroom\.keys\.root: got 'vtpm'"):
        opened(system, {"root": "vtpm"})
