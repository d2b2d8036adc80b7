"""Doors whose silicon cannot be verified without what its makers sign: at the door, at the client, or nowhere.

The real door as a process, evidence and collateral of simulated makers, the library's client and the command line.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from guest.collateral import KeptCollateral
from strongroom.appraise.policy import Policy
from strongroom.cli.kept import Kept
from strongroom.cli.main import main
from strongroom.errors import PolicyError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.host.attested import AttestedConnection
from strongroom.host.collateral.item import Vendor
from strongroom.host.collateral.nvidia import NVIDIAManifest
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import nothing
from strongroom.ratls.certificate import extract
from strongroom.receipts.envelope import parse
from strongroom.verify.lacking import LackingError
from tests.fakes.agent import Make
from tests.fakes.makers import PCK_SERIAL, World
from tests.fakes.served import Served, served
from tests.fakes.vendors import Vendors, playing

Capture = pytest.CaptureFixture[str]
NOW = datetime.now(UTC)
LATER = timedelta(days=60)
TDX, GPU, BOTH = World(NOW, "tdx"), World(NOW, "snp", gpus=1), World(NOW, "tdx", gpus=2)
OLD = {world: replace(world, ago=LATER) for world in (TDX, GPU, BOTH)}
REVOKED = replace(TDX, revoked=frozenset({PCK_SERIAL}))
NOT_CHECKED = "not checked: revocation of the ask"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store of whoever runs this."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The one that a command without --collateral looks at."""
    return Store.create(tmp_path / "cache" / "strongroom" / "collateral")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


@contextmanager
def door(world: World, directory: Path, policy: Path, make: Make | None = None) -> Iterator[Served]:
    """An open door on a machine of `world`, and a policy that accepts it."""
    policy.write_text(json.dumps(world.policy()))
    with served(directory, make=make or world.make) as (door, _):
        yield door


def completing(world: World, directory: Path) -> Make:
    """An agent that puts what lies in a directory into its bundles."""
    kept = KeptCollateral(directory, roots=world.roots)

    def make(*, purpose: Purpose, challenge: bytes, key: bytes, events: EventLog) -> Bundle:
        return kept.complete(world.make(purpose=purpose, challenge=challenge, key=key))

    return make


def connected(world: World, door: Served, store: Store | None = None) -> AttestedConnection:
    now = datetime.now(UTC)
    return AttestedConnection.open(
        door.url,
        policy=Policy.from_raw(world.policy()),
        roots=world.roots,
        now=now,
        supply=nothing if store is None else Kept(store.directory, roots=world.roots, now=now),
    )


def refused(world: World, door: Served, store: Store | None = None) -> str:
    """Why nobody who looks gets to ask anything."""
    with pytest.raises((VerifyError, PolicyError)) as caught:
        connected(world, door, store)
    assert door.engine.asked == []
    return str(caught.value)


@pytest.mark.parametrize("world", [TDX, GPU, BOTH], ids=["tdx", "gpu", "both"])
def test_a_door_brings_its_collateral(
    world: World, socket_dir: Path, tmp_path: Path, policy: Path, capsys: Capture
) -> None:
    world.fill(Store.create(tmp_path / "guest"))
    receipt = tmp_path / "receipt.json"
    with door(world, socket_dir, policy, completing(world, tmp_path / "guest")) as open_door:
        with connected(world, open_door) as connection:
            examined = connection.examination
        assert (
            main(["verify", open_door.url, "--policy", str(policy), "--save-evidence", str(tmp_path / "e")])
            == 0
        )
        out = capsys.readouterr().out
        assert "REFUSED" not in out and NOT_CHECKED not in out
        ask = ["chat", open_door.url, "hello", "--policy", str(policy), "--receipt", str(receipt)]
        assert main(ask) == 0
    assert examined.channel.bundle.collateral == world.collateral
    assert not extract(examined.certificate).collateral  # it is short
    assert examined.receipts is not None
    assert not examined.receipts.bundle.collateral  # nothing is sent twice
    # What was kept needs nothing else, as of a time when the makers' word held.
    assert parse(receipt.read_bytes())[2].collateral == world.collateral
    check = ["receipt", "verify", str(receipt), "--policy", str(policy)]
    assert main(check) == 0
    assert main(["verify", str(tmp_path / "e"), "--policy", str(policy)]) == 0
    capsys.readouterr()
    assert main([*check, "--now", (NOW + LATER).isoformat()]) in (5, 6)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("world", [TDX, GPU, BOTH], ids=["tdx", "gpu", "both"])
def test_a_client_has_its_own_collateral(
    world: World, store: Store, socket_dir: Path, policy: Path, tmp_path: Path, capsys: Capture
) -> None:
    world.fill(store)
    receipt = tmp_path / "receipt.json"
    with door(world, socket_dir, policy) as open_door:
        with connected(world, open_door, store) as connection:
            assert connection.examination.own.collateral == world.collateral
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 0
        assert NOT_CHECKED not in capsys.readouterr().out
        ask = ["chat", open_door.url, "hello", "--policy", str(policy), "--receipt", str(receipt)]
        assert main([*ask, "--collateral", str(store.directory)]) == 0
        check = ["receipt", "verify", str(receipt), "--policy", str(policy)]
        assert main(check) == 0
        empty = tmp_path / "empty"
        empty.mkdir()
        assert main([*check, "--collateral", str(empty)]) in (5, 6)
        assert main(["verify", open_door.url, "--policy", str(policy), "--collateral", str(empty)]) in (5, 6)
        assert main(["verify", open_door.url, "--policy", str(policy), "--collateral", "nowhere"]) == 3


@pytest.mark.guarantee("G8")
def test_without_collateral_a_door_is_refused_with_the_way_to_get_it(
    store: Store, socket_dir: Path, policy: Path, capsys: Capture
) -> None:
    with door(TDX, socket_dir, policy) as open_door:
        with pytest.raises(LackingError):
            connected(TDX, open_door)
        refused(TDX, open_door)
        for verb in (["verify", open_door.url], ["chat", open_door.url, "hello"]):
            assert main([*verb, "--policy", str(policy)]) == 5
            out, told = capsys.readouterr()
            assert out == "" and told == (
                "strongroom: tdx collateral: neither evidence nor verifier has intel-tcb-info, "
                "intel-tcb-info-chain, intel-qe-identity, intel-qe-identity-chain, intel-root-crl, intel-pck-crl, "
                "intel-pck-crl-chain; get it with --fetch, or `strongroom collateral fill --tdx-platform "
                "90c06f000000:platform`\n"
            )
        assert open_door.engine.asked == []


@pytest.mark.guarantee("G8")
def test_gpus_that_nobody_can_judge_are_refused(
    store: Store, socket_dir: Path, policy: Path, capsys: Capture
) -> None:
    with door(GPU, socket_dir, policy) as open_door:
        reasons = refused(GPU, open_door)
        assert "gpu measurements is not compared" in reasons and "gpu revocation is unknown" in reasons
        GPU.fill(store, without=NVIDIAManifest)
        assert "gpu measurements is not compared" in refused(GPU, open_door, store)
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 6


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("world", "reason"),
    [(TDX, "qe identity|tcb info|revocation list of .*: expired"), (GPU, "ocsp: the answer about .* ended")],
    ids=["tdx", "gpu"],
)
def test_collateral_out_of_date_is_refused_and_ones_own_helps(
    world: World, reason: str, store: Store, socket_dir: Path, policy: Path, capsys: Capture
) -> None:
    with door(world, socket_dir, policy, OLD[world].carrying) as open_door:
        with pytest.raises(LackingError, match=reason):
            connected(world, open_door)
        assert main(["chat", open_door.url, "hello", "--policy", str(policy)]) == 5
        assert capsys.readouterr().out == "" and open_door.engine.asked == []
        OLD[world].fill(store)  # as old at the client: as if it were absent
        with pytest.raises(VerifyError, match=reason):
            connected(world, open_door, store)
        world.fill(store)
        connected(world, open_door, store).close()


@pytest.mark.guarantee("G8")
def test_a_revoked_platform_is_refused_whoever_knows_it(store: Store, socket_dir: Path, policy: Path) -> None:
    why = "Intel SGX PCK Certificate INSECURE-SIMULATED: serial 0xc0ffee is revoked"
    with door(TDX, socket_dir, policy, REVOKED.carrying) as open_door:
        assert refused(TDX, open_door) == why
    (socket_dir / "again").mkdir()
    with door(TDX, socket_dir / "again", policy, TDX.carrying) as open_door:
        connected(TDX, open_door).close()
        REVOKED.fill(store)  # the client has heard what the door does not tell
        assert refused(TDX, open_door, store) == why
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 5


def test_what_is_lacking_is_fetched_when_asked_for(
    store: Store,
    socket_dir: Path,
    tmp_path: Path,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    vendors = Vendors()
    BOTH.play(vendors)
    with door(BOTH, socket_dir, policy) as open_door, playing(tmp_path, vendors) as played:
        monkeypatch.setattr("strongroom.cli.kept.PUBLIC", MappingProxyType(dict(played.services)))
        assert set(played.services) == set(Vendor)
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 5
        assert vendors.asked == [] and store.names() == []  # nobody learns anything unasked
        capsys.readouterr()
        assert main(["verify", open_door.url, "--policy", str(policy), "--fetch"]) == 0
        told = capsys.readouterr().err.splitlines()
        assert told and all(line.startswith("fetched: ") for line in told)
        asked = len(vendors.asked)
        assert main(["chat", open_door.url, "hello", "--policy", str(policy), "--fetch"]) == 0
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 0
        assert len(vendors.asked) == asked  # all of it is kept


def test_a_maker_that_is_away_is_told(
    store: Store,
    socket_dir: Path,
    tmp_path: Path,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    with door(TDX, socket_dir, policy) as open_door, playing(tmp_path, Vendors()) as played:
        monkeypatch.setattr("strongroom.cli.kept.PUBLIC", MappingProxyType(dict(played.services)))
        assert main(["verify", open_door.url, "--policy", str(policy), "--fetch"]) == 5
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith("failed: Intel platforms 90c06f000000, TDX, platform CA: ")
        assert told[1].startswith(
            "strongroom: tdx collateral: neither evidence nor verifier has intel-tcb-info"
        )


def test_a_list_from_the_store_ends_a_gap(
    store: Store, socket_dir: Path, policy: Path, capsys: Capture
) -> None:
    world = World(NOW, "snp")
    with door(world, socket_dir, policy) as open_door:
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 0
        assert NOT_CHECKED in capsys.readouterr().out
        world.fill(store)
        assert main(["verify", open_door.url, "--policy", str(policy)]) == 0
        assert NOT_CHECKED not in capsys.readouterr().out
