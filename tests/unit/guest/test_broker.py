"""Mirrors guest/broker.py: one session for a whole boot and for the programs after it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

import guest.boot
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.coco.plan import UNIT
from guest.config import Broker
from guest.keysock import plan as keysock
from guest.machine import units
from guest.machine.tsm import TSMReport
from guest.resources import Resources
from guest.stages.keys import Release
from guest.stages.mount import Volumes
from guest.stages.receive import ModelHere
from guest.system import System
from strongroom.broker.resource import ResourceURI
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import ConfigError, MachineError, StrongroomError
from strongroom.host import release
from strongroom.wire.canonical import b64u, pack_json
from tests.fakes.broker import VOLUME, ToldKeeper, desk
from tests.fakes.https import certificate
from tests.fakes.misbehaving import Misbehaving, serving
from tests.fakes.silicon import silicon
from tests.unit.guest.test_initdata import guest as machine
from tests.unit.guest.test_initdata import userdata
from tests.unit.host.test_release_session import until

T = TypeVar("T")
MODEL, ROOT, PASSWORD = (
    ResourceURI.parse(f"kbs:///default/{name}") for name in ("model/tiny", "keys/root", "db/password")
)
SECRETS: Final = {MODEL: VOLUME.pack(), ROOT: bytes(range(32)), PASSWORD: b"a password"}


class Chip:
    """guest.machine.tsm.TSM of a guest whose launcher committed to its userdata, counting what is asked of it."""

    def __init__(self) -> None:
        self.host_data, self.reports = bytes(32), 0

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        self.reports += 1
        chip = silicon(host_data=self.host_data)
        return TSMReport(chip.report(report_data), chip.certificates(), "sev_guest")


class Guest:
    """A machine whose userdata names the broker at hand, and has keys, local keys and programs ask it."""

    def __init__(self, directory: Path, broker: Misbehaving, shown: TLSCertificate, **changes: Any) -> None:
        seed = directory / "seed"
        seed.mkdir()
        named = {"url": broker.url, "spki_sha256": shown.spki_sha256.hex(), "deadline_s": 5}
        keys = {"root": "broker", "resource": str(ROOT)}
        coco = {"rules": [{"uid": 1000, "resources": ["default/db/"], "allow": ["token"]}]}
        raw = userdata(**{"broker": named, "keys": keys, "coco": coco, **changes})
        (seed / "user-data").write_text(raw)
        self.chip = Chip()
        self.chip.host_data = sha256(raw.encode()).digest()
        made = machine(seed, self.chip)
        self.resources = Resources(made.attester, who=lambda _: UNIT)
        self.system: System = replace(made, resources=self.resources)

    async def ask(self, **question: Any) -> dict[str, Any]:
        return await self.resources.reply(UNIT, pack_json(question))

    @property
    def granted(self) -> bytes:
        return self.system.grants._granted[keysock.UNIT, keysock.ROOT].reveal()


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TLSCertificate:
    """The broker's certificate, on a machine whose stages past the keys have nothing to do."""

    async def start(unit: str, *, timeout: float) -> None:
        assert timeout > 0

    async def mounted(_: System, model: ModelHere) -> Volumes:
        assert model.release == Release(VOLUME.root, VOLUME.epoch)
        return Volumes(workload=model.workload, root=VOLUME.root.hex(), epoch=VOLUME.epoch, path=Path())

    async def on(_: System, before: object) -> object:
        return before

    monkeypatch.setattr(units, "start", start)
    monkeypatch.setattr(guest.boot, "mount", mounted)
    for later in ("certify", "tunnel", "gpus_ready", "serve"):
        monkeypatch.setattr(guest.boot, later, on)
    return certificate(tmp_path / "tls")


def booted(
    directory: Path,
    shown: TLSCertificate,
    afterwards: Callable[[Guest], Awaitable[T]],
    broker: Misbehaving | None = None,
    **changes: Any,
) -> tuple[T, Misbehaving]:
    """What comes of a whole boot and of what is done then, and the broker that it asked."""
    far = broker or Misbehaving(lambda: desk(ToldKeeper(SECRETS)))

    async def live() -> T:
        async with serving(directory / "tls", far):
            here = Guest(directory, far, shown, **changes)
            async with here.system.broker:
                await guest.boot.boot(here.system)
                return await afterwards(here)

    return asyncio.run(live()), far


@pytest.mark.guarantee("G1")
def test_a_whole_boot_and_what_programs_ask_later_is_one_handshake(
    tmp_path: Path, shown: TLSCertificate
) -> None:
    async def later(here: Guest) -> int:
        assert here.granted == SECRETS[ROOT]
        said = await asyncio.gather(*(here.ask(ask="resource", path="default/db/password") for _ in range(4)))
        assert said == [{"content": b64u(SECRETS[PASSWORD])}] * 4
        assert (await here.ask(ask="token"))["token"].count(".") == 2
        log = here.system.attester.log
        assert log.find("keys") is not None and log.find("keys-root") is not None
        return here.chip.reports

    reports, broker = booted(tmp_path, shown, later)
    assert (broker.handshakes, broker.count("attest"), broker.count("resource")) == (1, 1, 6)
    assert reports == 2  # one to see what was launched, one for the broker


@pytest.mark.parametrize(
    ("changes", "asked"), [({"keys": None, "coco": None}, 1), ({"coco": None}, 2), ({"keys": None}, 1)]
)
def test_whatever_is_configured_it_is_one(
    tmp_path: Path, shown: TLSCertificate, changes: dict[str, Any], asked: int
) -> None:
    async def later(here: Guest) -> bool:
        return here.system.broker._session is not None

    kept, broker = booted(tmp_path, shown, later, **changes)
    assert (broker.handshakes, broker.count("resource")) == (1, asked)
    assert kept is ("coco" not in changes)  # nobody is left to ask: token and key are forgotten


def test_it_is_renewed_once_for_all_who_ask(
    tmp_path: Path, shown: TLSCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "RENEW_AT", 0.001)
    monkeypatch.setattr(release, "_SHORTEST_LIFE", 0.05)

    async def later(here: Guest) -> int:
        session = here.system.broker._session
        assert session is not None
        held = session._held
        await until(lambda: session._held is not held)
        monkeypatch.setattr(release, "_SHORTEST_LIFE", 3600.0)
        begun = session.handshakes
        for _ in range(3):
            await here.ask(ask="resource", path="default/db/password")
        assert session.handshakes <= begun + 1
        return session.handshakes

    handshakes, broker = booted(tmp_path, shown, later)
    assert handshakes == broker.handshakes > 1
    assert broker.count("attest") == broker.handshakes


def test_a_broker_that_forgot_us_is_told_who_we_are_once(tmp_path: Path, shown: TLSCertificate) -> None:
    far = Misbehaving(lambda: desk(ToldKeeper(SECRETS)))

    async def later(here: Guest) -> None:
        far.restart()
        found = await asyncio.gather(
            *(here.ask(ask="resource", path="default/db/password") for _ in range(3))
        )
        assert found == [{"content": b64u(SECRETS[PASSWORD])}] * 3

    booted(tmp_path, shown, later, far)
    assert far.handshakes == 2


def test_a_refusal_ends_the_boot_after_one_handshake(tmp_path: Path, shown: TLSCertificate) -> None:
    far = Misbehaving(lambda: desk(ToldKeeper({MODEL: SECRETS[MODEL]})))

    async def never(_: Guest) -> None:
        raise AssertionError("it booted")

    with pytest.raises(StrongroomError, match="keys/root"):
        booted(tmp_path, shown, never, far)
    assert (far.handshakes, far.count("resource")) == (1, 2)


def named(url: str = "https://broker.example:8443") -> Broker:
    return Broker(url=url, ca_pem=None, spki_sha256="05" * 32, deadline_s=5)


def test_a_session_is_made_when_somebody_asks_and_for_all() -> None:
    async def live() -> None:
        async with KeyBroker(Attester(Chip())) as broker:
            with pytest.raises(ConfigError, match="a resource is named and no broker"):
                await broker.session(None)
            first, *others = await asyncio.gather(*(broker.session(named()) for _ in range(5)))
            assert all(other is first for other in others) and first.handshakes == 0
            with pytest.raises(MachineError, match="another one than this boot began with"):
                await broker.session(named("https://other.example"))
            await broker.rest()
            assert await broker.session(named()) is not first
        with pytest.raises(MachineError, match="going down"):
            await broker.session(named())

    asyncio.run(live())
