"""Mirrors guest/stages/receive.py and keys.py: what is waited for is in the log before, what came is in it behind."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guest import bounds
from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.config import Broker, Config, Model, Push
from guest.door import Door
from guest.evidence import RECEIVER_UNIT
from guest.gpus import GPUs
from guest.grants import Grants
from guest.machine import units
from guest.machine.tsm import TSMReport
from guest.machine.units import UnitState
from guest.record import Record
from guest.stages import receive as stage
from guest.stages.keys import Keys, Release, obtain_keys
from guest.stages.measure import Workload
from guest.stages.receive import receive
from guest.stages.sockets import Sockets
from guest.stages.volumes import StateVolumes
from guest.system import System
from sidecars.receive.config import ReceiveConfig
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import FormatError, MachineError, ProtocolError, StrongroomError
from strongroom.evidence.eventlog import EventLog
from strongroom.host.secret import Secret
from strongroom.push.answers import ACCEPTED, Accepted
from strongroom.push.offer import provider_name, spki_of
from strongroom.wire.canonical import b64u, pack_json, parse_json
from tests.fakes.silicon import silicon

PROVIDER = spki_of(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
ACCEPTANCE = Accepted(
    name="tiny",
    epoch=3,
    root=bytes([1]) * 32,
    manifest_sha256=bytes([2]) * 32,
    provider_sha256=bytes.fromhex(provider_name(PROVIDER)),
)
KEY = bytes(range(32))


class FakeTSM:
    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        return TSMReport(silicon().report(report_data), b"", "sev_guest")


@pytest.fixture
def system(tmp_path: Path) -> System:
    attester = Attester(FakeTSM())
    return System(
        seed=tmp_path,
        engine_venv=tmp_path,
        attester=attester,
        gpus=cast(GPUs, None),
        grants=Grants(),
        record=Record(tmp_path / "boot.json"),
        applications=cast(Applications, None),
        broker=KeyBroker(attester),
    )


def workload(*, key: str | None = None, push: bool = True, source: str = bounds.PUSHED) -> Workload:
    model = Model(
        name="tiny",
        source=source,
        key=key,
        push=Push(provider_keys=(b64u(PROVIDER),), port=8444, max_gib=1, wait_s=60) if push else None,
    )
    config = Config(
        userdata_sha256=bytes(32),
        userdata="",
        init_data=None,
        broker=Broker(url="https://b.example", ca_pem=None, spki_sha256="ab" * 32, deadline_s=5)
        if key
        else None,
        model=model,
        engine=cast(Any, None),
        door=Door(port=8443, names=("llm.example",), tenants=(), cache="tenant"),
        keys=None,
        gpus=0,
    )
    return Workload(config=config, plan=cast(Any, None), measurement=bytes(48))


class Manager:
    """Stands in for the service manager: the unit says one status after another."""

    def __init__(self, *states: str | UnitState) -> None:
        self.states = list(states)
        self.calls: list[str] = []
        self.log_at_start: EventLog | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch, system: System) -> None:
        async def start(unit: str, *, timeout: float) -> None:
            self.calls.append(f"start {unit}")
            self.log_at_start = system.attester.log

        async def stop(*units: str, timeout: float) -> None:
            self.calls.append(f"stop {' '.join(units)}")

        async def state(unit: str) -> UnitState:
            said = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if isinstance(said, UnitState):
                return said
            stopped = self.calls[-1].startswith("stop")
            return unit_state(said, "inactive" if stopped else "active")

        for name, fake in (("start", start), ("stop", stop), ("state", state)):
            monkeypatch.setattr(units, name, fake)
        monkeypatch.setattr(stage, "_POLL", 0.0)


def unit_state(status: str, active: str = "active", exit_status: int = 0) -> UnitState:
    result = "exit-code" if exit_status else "success"
    return UnitState(RECEIVER_UNIT, active, "", result, status, 0, exit_status, 0)


def told(accepted: Accepted = ACCEPTANCE) -> str:
    return ACCEPTED + pack_json(accepted.to_json()).decode()


def waiting(key: str | None = None) -> Keys:
    return Keys(workload=workload(key=key), key=KEY, release=None)


def test_a_push_is_waited_for_and_written_down(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager("waiting for a provider", "receiving tiny: 1 of 2 bytes", told())
    manager.install(monkeypatch, system)
    here = asyncio.run(receive(system, StateVolumes(Sockets(waiting()))))
    assert (here.key, here.release) == (KEY, Release(ACCEPTANCE.root, 3))
    assert manager.calls == [f"start {RECEIVER_UNIT}", f"stop {RECEIVER_UNIT}"]
    assert manager.log_at_start is not None
    expected = {"name": "tiny", "key": "ephemeral", "providers": [provider_name(PROVIDER)]}
    assert parse_json(manager.log_at_start.find("push") or b"", "push") == expected
    assert manager.log_at_start.find("pushed") is None
    assert parse_json(system.attester.log.find("pushed") or b"", "pushed") == ACCEPTANCE.to_json()
    assert system.record.content["push"]["status"] == "receiving tiny: 1 of 2 bytes"
    assert KEY.hex() not in repr(here)


def test_the_door_gets_its_settings_and_the_key_by_credential(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    Manager(told()).install(monkeypatch, system)
    asyncio.run(receive(system, StateVolumes(Sockets(waiting()))))

    def granted(name: str) -> bytes:
        address = f"\0x/unit/{RECEIVER_UNIT}/{name}".encode()
        return system.grants.take(address, 0, RECEIVER_UNIT).reveal()

    config = ReceiveConfig.parse(granted("receive"))
    assert (config.name, config.providers, config.max_bytes) == ("tiny", frozenset([PROVIDER]), 1 << 30)
    assert config.dest == Path(bounds.PUSHED)
    assert granted("model-key") == KEY


def test_a_model_at_its_source_is_there_already(system: System) -> None:
    keys = Keys(workload=workload(key="kbs:///a/b/c", push=False), key=KEY, release=Release(bytes(32), 1))
    here = asyncio.run(receive(system, StateVolumes(Sockets(keys))))
    assert here.release == keys.release
    assert system.attester.log.events == ()


@pytest.mark.parametrize(
    ("states", "kind", "said"),
    [
        ([unit_state("", "failed", 3)], StrongroomError, "is failed"),
        ([unit_state("receive.name: want text", "failed", 3)], StrongroomError, "receive.name: want text"),
        ([f"{ACCEPTED}{{}}"], FormatError, "want an object"),
        ([told(replace(ACCEPTANCE, name="other"))], ProtocolError, "accepted 'other', want 'tiny'"),
        ([told(replace(ACCEPTANCE, provider_sha256=bytes(32)))], ProtocolError, "does not name"),
        ([told(), unit_state(told())], MachineError, "is still active, want it stopped"),
    ],
)
def test_whatever_else_the_unit_says_ends_the_boot(
    system: System,
    monkeypatch: pytest.MonkeyPatch,
    states: list[str | UnitState],
    kind: type[Exception],
    said: str,
) -> None:
    Manager(*states).install(monkeypatch, system)
    with pytest.raises(kind, match=said):
        asyncio.run(receive(system, StateVolumes(Sockets(waiting()))))
    assert system.attester.log.find("pushed") is None


def test_a_door_that_was_killed_is_waited_for(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    Manager(unit_state("", "activating"), told()).install(monkeypatch, system)
    assert asyncio.run(receive(system, StateVolumes(Sockets(waiting())))).release.epoch == 3


def test_nobody_pushes_in_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    Manager("waiting for a provider").install(monkeypatch, system)
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with pytest.raises(MachineError, match="no model was accepted within 60 s"):
        asyncio.run(receive(system, StateVolumes(Sockets(waiting()))))


# Where the key comes from


class FakeSession:
    broker_spki_sha256 = bytes(32)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def get(self, resource: ResourceURI) -> Secret:
        assert str(resource) == "kbs:///a/b/c"
        return Secret(self._secret)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sets what the broker gives to whoever asks for bytes."""

    def gives(secret: bytes) -> None:
        async def session(*_: object) -> FakeSession:
            return FakeSession(secret)

        monkeypatch.setattr(KeyBroker, "session", session)

    return gives


def test_an_ephemeral_key_is_made_here_and_asked_of_nobody(system: System) -> None:
    one, other = (asyncio.run(obtain_keys(system, workload())) for _ in range(2))
    assert len(one.key) == 32
    assert one.key != other.key
    assert one.release is None
    assert system.attester.log.events == ()


def test_a_key_for_sealing_comes_from_the_broker_as_it_is(
    system: System, broker: Callable[[bytes], None]
) -> None:
    broker(KEY)
    keys = asyncio.run(obtain_keys(system, workload(key="kbs:///a/b/c")))
    assert (keys.key, keys.release) == (KEY, None)
    assert system.attester.log.find("keys") is not None
    for other in (KEY[:-1], KEY + b"\0", b"", VolumeKey(key=KEY, root=KEY, epoch=1).pack()):
        broker(other)
        with pytest.raises(FormatError, match=r"kbs:///a/b/c is no key of 32 bytes"):
            asyncio.run(obtain_keys(system, workload(key="kbs:///a/b/c")))


def test_a_sealed_model_takes_a_volume_key(system: System, broker: Callable[[bytes], None]) -> None:
    broker(VolumeKey(key=KEY, root=bytes(32), epoch=7).pack())
    keys = asyncio.run(obtain_keys(system, workload(key="kbs:///a/b/c", push=False)))
    assert (keys.key, keys.release) == (KEY, Release(bytes(32), 7))
    assert KEY.hex() not in repr(keys)
