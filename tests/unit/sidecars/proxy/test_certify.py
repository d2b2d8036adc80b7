"""Mirrors sidecars/proxy/certify.py."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sidecars.proxy.certify import KEPT, ClockError, ReceiptIdentity, make_receipt_identity, watch_clock
from sidecars.proxy.plan import Plan
from strongroom.errors import ConfigError, MachineError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import EventLog
from strongroom.receipts.keys import DoorKeys
from strongroom.verify.bundle import verify_bundle
from tests.fakes import book as fake
from tests.fakes.agent import Agent
from tests.fakes.exchange import ENGINE, MODEL, NOW, events
from tests.fakes.silicon import bundle, roots, silicon


class World:
    def __init__(self, directory: Path) -> None:
        self.directory, self.socket = directory / "runtime", directory / "evidence.sock"
        self.directory.mkdir()
        self.agent = Agent(silicon(), events())

    def make(self, *, keys: DoorKeys = fake.KEYS, hybrid: bool = False, later: int = 0) -> ReceiptIdentity:
        plan: Plan = replace(fake.plan(receipts={"hybrid": hybrid}), evidence_socket=self.socket)

        async def run() -> ReceiptIdentity:
            await self.agent.start(self.socket)
            try:
                now = NOW + timedelta(seconds=later)
                return await make_receipt_identity(plan, keys, now=now, directory=self.directory)
            finally:
                await self.agent.stop()

        return asyncio.run(run())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("hybrid", [False, True])
def test_evidence_speaks_for_every_key_that_signs(world: World, hybrid: bool) -> None:
    identity = world.make(hybrid=hybrid)
    assert identity.spki == fake.KEYS.signer(hybrid=hybrid).key
    claims = verify_bundle(
        identity.evidence,
        purpose=Purpose.RECEIPT_KEY,
        challenge=receipt_challenge(identity.not_before),
        key=identity.spki,
        roots=roots(silicon()),
        now=NOW,
    )
    assert claims.simulated and world.agent.asked == [Purpose.RECEIPT_KEY]
    assert "key" not in repr(identity) and "signer" not in repr(identity)


def test_a_door_that_starts_again_shows_the_same(world: World) -> None:
    first, second = world.make(), world.make(later=600)
    assert (second.evidence, second.not_before) == (first.evidence, first.not_before)


@pytest.mark.guarantee("G12")
def test_a_clock_that_was_set_back_has_evidence_made_anew(world: World) -> None:
    first = world.make()
    assert world.make(later=-59).evidence == first.evidence  # verifiers allow for that much
    second = world.make(later=-3600)
    assert second.not_before == first.not_before - timedelta(hours=1)
    assert world.make(later=-3600).evidence == second.evidence, "and that is kept"


@pytest.mark.guarantee("G12")
def test_nothing_is_signed_that_would_verify_nowhere(world: World) -> None:
    identity = world.make()
    first = identity.not_before.timestamp()
    identity.require_clock(first - 60)
    with pytest.raises(ClockError, match="the clock was set back to before 2026-11-20T12:00Z"):
        identity.require_clock(first - 61)
    times = iter([first, first + 1, first - 59, first - 61])
    with pytest.raises(ClockError):
        asyncio.run(watch_clock(identity, clock=lambda: next(times), every=0))
    assert next(times, None) is None


def test_its_collateral_is_the_newest(world: World) -> None:
    world.make()
    newer = Collateral((("snp-crl", b"newer"),))

    def make(*, purpose: Purpose, challenge: bytes, key: bytes, events: EventLog) -> Bundle:
        made = bundle(silicon(), purpose=purpose, challenge=challenge, key=key, events=events)
        return replace(made, collateral=newer)

    first = world.make()
    world.agent.make = make
    again = world.make()
    assert again.evidence.collateral == newer and again.evidence.digest == first.evidence.digest


def test_evidence_for_other_keys_is_not_kept_up(world: World) -> None:
    identities = [world.make(), world.make(keys=DoorKeys.from_secret(bytes(32))), world.make(hybrid=True)]
    assert len({identity.evidence.digest for identity in identities}) == 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"key":1}', b"\xff"])
def test_what_was_kept_and_cannot_be_read_is_asked_for_anew(world: World, damage: bytes) -> None:
    first = world.make()
    path = world.directory / KEPT
    value = json.loads(path.read_bytes())
    for broken in (damage, json.dumps({**value, "not_before": 10**30}).encode(),
                   json.dumps({**value, "bundle": {}}).encode()):  # fmt: skip
        path.write_bytes(broken)
        assert world.make(later=600).not_before > first.not_before


@pytest.mark.guarantee("G11")
def test_what_is_kept_holds_no_secret(world: World) -> None:
    world.make()
    assert [path.name for path in world.directory.iterdir()] == [KEPT]
    value = json.loads((world.directory / KEPT).read_bytes())
    assert value.keys() == {"key", "not_before", "bundle"}


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (events(model=replace(MODEL, epoch=9)), "door.model: "),
        (events(engine=replace(ENGINE, version="9")), "door.engine: "),
    ],
)
def test_evidence_of_another_machine_is_refused(world: World, log: EventLog, why: str) -> None:
    world.agent.events = log
    with pytest.raises(ConfigError, match=why):
        world.make()
    assert not (world.directory / KEPT).exists()


def test_an_agent_that_refuses_and_a_place_without_room(world: World) -> None:
    world.agent.refusal = "not now"
    with pytest.raises(MachineError, match="not now"):
        world.make()
    world.agent.refusal = None
    (world.directory / f".{KEPT}").mkdir()
    with pytest.raises(MachineError, match=f"{KEPT}: is a directory"):
        world.make()
