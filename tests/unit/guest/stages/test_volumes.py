"""Mirrors guest/stages/volumes.py: keys over the one session, grants by unit, and one sentence for what fails."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from guest.keysock.plan import UNIT as KEYSOCK
from guest.machine import mounts, units
from guest.machine.units import UnitState
from guest.record import card
from guest.stages.configure import configure
from guest.stages.keys import Keys
from guest.stages.measure import Workload
from guest.stages.sockets import Sockets
from guest.stages.volumes import EVENT, StateVolumes, mount_volumes
from guest.system import System
from sidecars.fs.config import Format, Mode, VolumeConfig
from strongroom.broker.desk import Question, Ruling
from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import FormatError, MachineError, PolicyError, StrongroomError, VerifyError
from strongroom.wire.canonical import JSON, parse_json
from tests.fakes.broker import ToldKeeper, desk
from tests.fakes.https import certificate
from tests.fakes.misbehaving import Misbehaving, serving
from tests.unit.guest.test_initdata import guest, userdata

STATE, DATA = "kbs:///default/volumes/state", "kbs:///default/volumes/data"
VOLUMES: Final[list[dict[str, object]]] = [
    {"name": "state", "source": "/srv/state.enc", "key": STATE},
    {"name": "data", "source": "/srv/data.enc", "key": DATA, "read_only": True, "side": "/srv/data.side"},
]
KEY: Final = bytes(range(50, 82))
PINNED: Final = VolumeKey(key=bytes(range(32)), root=bytes([7]) * 32, epoch=4)
SECRETS: Final = {STATE: KEY, DATA: PINNED.pack()}


@dataclass
class Picky(ToldKeeper):
    """Refuses one resource."""

    refused: str = ""

    def judge(self, question: Question, proof: Proof, now: datetime) -> Ruling | None:
        self.reasons = ("measurement is old, want new",) if str(question.uri) == self.refused else ()
        return super().judge(question, proof, now)


@dataclass
class Machine:
    """What systemd and the kernel were told, and what they say."""

    system: System
    mounted: dict[str, str] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    log_at_start: list[str] = field(default_factory=list)

    async def start(self, unit: str, *, timeout: float) -> None:
        assert timeout > 60  # what the unit has itself
        self.started.append(unit)
        self.log_at_start = [event.name for event in self.system.attester.log.events]
        name = unit.removeprefix("strongroom-live@").removesuffix(".service")
        self.mounted.setdefault(f"/run/strongroom/volumes/{name}", mounts.OURS)

    def granted(self, unit: str, name: str) -> bytes:
        return self.system.grants.take(f"\0x/unit/{unit}/{name}".encode(), 0, unit).reveal()

    def volume(self, name: str) -> VolumeConfig:
        return VolumeConfig.parse(self.granted(f"strongroom-live@{name}.service", "volume"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "seed").mkdir()
    made = Machine(guest(tmp_path / "seed"))
    monkeypatch.setattr(units, "start", made.start)
    monkeypatch.setattr(mounts, "type_at", made.mounted.get)
    return made


def stage(
    machine: Machine,
    volumes: object = VOLUMES,
    secrets: Mapping[str, bytes] = SECRETS,
    *,
    refused: str = "",
) -> Misbehaving:
    """The broker that was asked, once all is mounted."""
    folder = machine.system.seed.parent
    shown = certificate(folder / "tls")
    kept = {ResourceURI.parse(uri): secret for uri, secret in secrets.items()}
    broker = Misbehaving(lambda: desk(Picky(kept, refused=refused)))

    async def live() -> None:
        async with serving(folder / "tls", broker), machine.system.broker:
            named = {"url": broker.url, "spki_sha256": shown.spki_sha256.hex(), "deadline_s": 5}
            (machine.system.seed / "user-data").write_text(userdata(broker=named, volumes=volumes))
            config = await configure(machine.system)
            workload = Workload(config=config, plan=None, measurement=b"")  # type: ignore[arg-type]
            sockets = Sockets(Keys(workload=workload, key=bytes(32), release=None))
            work = mount_volumes(machine.system, sockets)
            assert await machine.system.record.stage("volumes", work) == StateVolumes(sockets)

    asyncio.run(live())
    return broker


@pytest.mark.guarantee("G1")
def test_every_volume_has_its_key_over_one_handshake_and_is_mounted(machine: Machine) -> None:
    broker = stage(machine)
    assert (broker.handshakes, broker.count("resource")) == (1, 2)
    assert machine.started == ["strongroom-live@state.service", "strongroom-live@data.service"]
    state, data = machine.volume("state"), machine.volume("data")
    assert (state.source, state.mount) == (Path("/srv/state.enc"), Path("/run/strongroom/volumes/state"))
    assert (state.format, state.writable, state.root) == (Format.GOCRYPTFS, True, None)
    assert (data.writable, data.mode, data.side) == (False, Mode.STREAM, Path("/srv/data.side"))
    assert (data.root, data.epoch) == (PINNED.root, PINNED.epoch)
    assert machine.granted("strongroom-live@state.service", "model-key") == KEY
    assert machine.granted("strongroom-live@data.service", "model-key") == PINNED.key


@pytest.mark.guarantee("G11")
def test_a_key_is_granted_to_its_own_unit_and_told_nobody(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    stage(machine)
    for unit in ("strongroom-live@other.service", "strongroom-fs.service", KEYSOCK):
        with pytest.raises(PolicyError, match="was never granted"):
            machine.granted(unit, "model-key")
    address = b"\0x/unit/strongroom-live@state.service/model-key"
    with pytest.raises(PolicyError, match="want its own"):
        machine.system.grants.take(address, 0, "strongroom-live@data.service")
    record = (machine.system.seed.parent / "boot.json").read_text()
    log = b"".join(event.payload for event in machine.system.attester.log.events)
    for key in (KEY, PINNED.key):
        assert key.hex() not in record + capsys.readouterr().out and key not in log


def test_the_log_names_them_before_any_can_be_read(machine: Machine) -> None:
    stage(machine)
    assert machine.log_at_start[-1] == EVENT
    said = parse_json(machine.system.attester.log.find(EVENT) or b"", "volumes")
    assert isinstance(said, dict) and len(bytes.fromhex(str(said["broker_spki_sha256"]))) == 32
    pinned: dict[str, JSON] = {"root": PINNED.root.hex(), "epoch": 4}
    assert said["volumes"] == [
        {"name": "state", "key": STATE, "read_only": False},
        {"name": "data", "key": DATA, "read_only": True, **pinned},
    ]
    record = machine.system.record.content
    assert record["volumes"] == [
        {"name": "state", "mount": "/run/strongroom/volumes/state", "read_only": False},
        {"name": "data", "mount": "/run/strongroom/volumes/data", "read_only": True, **pinned},
    ]
    assert "  volumes     state, data (read only)\n" in card(record)


def test_without_volumes_nobody_is_asked_and_nothing_is_said(machine: Machine) -> None:
    broker = stage(machine, [])
    assert broker.handshakes == 0 and machine.started == []
    assert machine.system.attester.log.find(EVENT) is None
    assert "volumes" not in machine.system.record.content


def test_one_that_is_read_and_not_pinned_takes_a_bare_key(machine: Machine) -> None:
    stage(machine, [{**VOLUMES[0], "read_only": True}])
    config = machine.volume("state")
    assert (config.writable, config.side, config.root) == (False, None, None)


@pytest.mark.guarantee("G15")
@pytest.mark.parametrize(
    ("secrets", "refused", "kind", "why"),
    [
        ({STATE: KEY}, "", PolicyError, "default/volumes/data"),
        (SECRETS, DATA, PolicyError, "measurement is old, want new"),
        ({**SECRETS, STATE: KEY[:-1]}, "", FormatError, "volume state: .*/state is no key of 32 bytes"),
        ({**SECRETS, STATE: KEY + b"\n"}, "", FormatError, "volume state: .*/state is no key of 32 bytes"),
        ({**SECRETS, STATE: PINNED.pack()}, "", FormatError, "volume state: .*/state is no key of 32 bytes"),
        ({**SECRETS, DATA: KEY}, "", FormatError, "volume data: kbs:///default/volumes/data: volume key: "),
        (
            {**SECRETS, DATA: PINNED.pack()[:-1]},
            "",
            FormatError,
            "volume data: kbs:///default/volumes/data: volume key: ",
        ),
    ],
    ids=["missing", "denied", "short", "long", "pinned for bare", "bare for pinned", "cut"],
)
def test_without_every_key_none_is_mounted(
    machine: Machine, secrets: dict[str, bytes], refused: str, kind: type[StrongroomError], why: str
) -> None:
    with pytest.raises(kind, match=why) as caught:
        stage(machine, secrets=secrets, refused=refused)
    assert machine.started == []
    assert machine.system.attester.log.find(EVENT) is None
    assert machine.system.record.content["stages"][-1] == {
        "name": "volumes", "outcome": "failed", "error": str(caught.value),
        "ms": machine.system.record.content["stages"][-1]["ms"],
    }  # fmt: skip


@pytest.mark.guarantee("G15")
def test_a_unit_that_ends_has_the_word(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(unit: str, *, timeout: float) -> None:
        said = "volume: no name opens under this key"
        raise UnitState(unit, "failed", "", "exit-code", said, 0, 5, 0).failure()

    monkeypatch.setattr(units, "start", start)
    with pytest.raises(VerifyError, match=r"^volume: no name opens under this key \(strongroom-live@state"):
        stage(machine)


@pytest.mark.parametrize(("found", "shown"), [(None, "no mount"), ("tmpfs", "tmpfs"), ("nfs4", "nfs4")])
def test_ready_and_not_mounted_is_not_enough(machine: Machine, found: Any, shown: str) -> None:
    machine.mounted["/run/strongroom/volumes/state"] = found
    with pytest.raises(MachineError, match=rf"^volume state: .* is ready, and at .*/state is {shown}$"):
        stage(machine)
    assert machine.started == ["strongroom-live@state.service"]
