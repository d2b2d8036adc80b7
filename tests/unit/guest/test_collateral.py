"""Mirrors guest/collateral.py: bundles of simulated machines, and what a directory has for them."""

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from guest.collateral import KeptCollateral
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.collateral import supply
from strongroom.host.collateral.intel import IntelPlatform
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest
from strongroom.host.collateral.store import Store
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import PRODUCTION
from tests.fakes.makers import World

CHALLENGE, KEY = bytes(range(32)), b"DER of a public key"


def made(world: World) -> Bundle:
    return world.make(purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY)


def verified(world: World, bundle: Bundle) -> Claims:
    return verify_bundle(
        bundle, purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY, roots=world.roots, now=world.now
    )


def kept(world: World, directory: Path, *, later: timedelta = timedelta()) -> KeptCollateral:
    return KeptCollateral(directory, roots=world.roots, now=lambda: world.now + later)


@pytest.mark.parametrize("tee", ["snp", "tdx"])
@pytest.mark.parametrize("gpus", [0, 2])
def test_a_filled_directory_makes_bundles_that_need_nothing_else(
    tee: Literal["snp", "tdx"], gpus: int, now: datetime, tmp_path: Path
) -> None:
    world = World(now, tee, gpus)
    world.fill(Store.create(tmp_path))
    bundle = kept(world, tmp_path).complete(made(world))
    assert bundle.collateral == world.collateral
    assert bundle.digest == replace(bundle, collateral=supply.nothing(bundle).collateral).digest
    claims = verified(world, Bundle.parse(bundle.pack()))
    assert "revocation of the ask: no revocation list given" not in claims.not_checked
    assert not gpus or (claims.devices is not None and claims.devices.measured and claims.devices.answered_at)


def test_what_is_absent_forged_or_out_of_date_is_left_out(now: datetime, tmp_path: Path) -> None:
    world = World(now, "tdx", gpus=1)
    bundle = made(world)
    assert kept(world, tmp_path / "absent").complete(bundle) == bundle
    store = Store.create(tmp_path / "some")
    world.fill(store, without=NVIDIAManifest)
    found = kept(world, store.directory).complete(bundle)
    assert {name.partition("/")[0] for name, _ in found.collateral} >= {"intel-tcb-info", "nvidia-ocsp"}
    assert not any(name.startswith("nvidia-rim/") for name, _ in found.collateral)
    assert not kept(world, store.directory, later=timedelta(days=31)).complete(bundle).collateral
    intel = next(entry.name for entry in world.entries if isinstance(entry.item, IntelPlatform))
    (store.directory / f"{intel}.json").write_bytes(b"{}")
    assert kept(world, store.directory).complete(bundle).collateral.find("intel-tcb-info") is None
    assert not KeptCollateral(store.directory, roots=PRODUCTION, now=lambda: now).complete(bundle).collateral
    with pytest.raises(LackingError, match="neither evidence nor verifier has intel-tcb-info"):
        verified(world, bundle)


def test_answers_of_a_responder_are_carried_together_or_not_at_all(now: datetime, tmp_path: Path) -> None:
    world = World(now, "snp", gpus=2)
    store = Store.create(tmp_path)
    world.fill(store)
    last = [entry for entry in world.entries if getattr(entry.item, "use", "") == "device"][-1]
    (tmp_path / f"{last.name}.json").unlink()
    bundle = kept(world, tmp_path).complete(made(world))
    kinds = {name.partition("/")[0] for name, _ in bundle.collateral}
    assert kinds == {"amd-crl", "nvidia-rim", "nvidia-rim-ocsp"}
    assert "revocation of the device: no ocsp answers given" in verified(world, bundle).not_checked


def test_what_a_list_revokes_is_carried_too(now: datetime, tmp_path: Path) -> None:
    world = World(now, "tdx", revoked=frozenset({0xC0FFEE}))
    world.fill(Store.create(tmp_path))
    assert kept(world, tmp_path).complete(made(world)).collateral == world.collateral


@pytest.mark.parametrize("roles", [(), ("vcek",), ("vcek", "ask")])
def test_a_chip_whose_host_gives_less_gets_its_certificates(
    roles: tuple[str, ...], now: datetime, tmp_path: Path
) -> None:
    world = World(now, "snp")
    world.fill(Store.create(tmp_path))
    bundle = made(world)
    whole = CertificateTable.parse(bundle.certificates)
    given = CertificateTable(**{role: getattr(whole, role) for role in roles}).pack()
    completed = kept(world, tmp_path).complete(replace(bundle, certificates=given))
    verified(world, completed)
    assert CertificateTable.parse(completed.certificates).ark == whole.ark
    table = kept(world, tmp_path).table(bundle.report, given)
    assert CertificateTable.parse(table).ark == whole.ark
    assert kept(world, tmp_path).table(b"no report", given) == given


def test_nothing_is_read_again_until_something_changed(
    now: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, asked = World(now, "tdx", gpus=1), list[Item]()
    store = Store.create(tmp_path)
    world.fill(store, without=IntelPlatform)
    find = Store.find

    def noting(self: Store, item: Item) -> object:
        asked.append(item)
        return find(self, item)

    monkeypatch.setattr(Store, "find", noting)
    moment = [now]
    ours = KeptCollateral(tmp_path, roots=world.roots, now=lambda: moment[0])
    first = ours.complete(made(world))
    times = len(asked)
    assert times and ours.complete(made(world)).collateral == first.collateral and len(asked) == times
    world.fill(store)
    assert ours.complete(made(world)).collateral == world.collateral and len(asked) > times
    times = len(asked)
    name = store.directory / f"{store.names()[0]}.json"
    os.utime(name, ns=(1, 1))
    ours.complete(made(world))
    assert len(asked) > times
    moment[0] = now + timedelta(days=31)  # all of it ran out by itself
    assert not ours.complete(made(world)).collateral
