"""Mirrors strongroom/host/collateral/supply.py and wanted.py, for whole bundles."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from strongroom.evidence import collateral as names
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import MAX_BYTES, Collateral
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest, NVIDIAStatus
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import FOREVER, Supplied, at_hand, is_answered, nothing
from strongroom.host.collateral.wanted import for_bundle
from strongroom.verify.roots import PRODUCTION
from tests.fakes import composite
from tests.fakes.makers import World


def made(world: World) -> Bundle:
    return world.make(purpose=Purpose.BOOT, challenge=bytes(32), key=b"key")


@pytest.mark.parametrize("tee", ["snp", "tdx"])
@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_a_bundle_asks_for_all_it_takes_and_a_full_store_has_it(
    tee: Literal["snp", "tdx"], gpus: int, now: datetime, store: Store
) -> None:
    world = World(now, tee, gpus)
    world.fill(store)
    wanted = for_bundle(made(world), roots=world.roots, now=now)
    kinds = {item.kind for item in wanted}
    assert kinds == {"amd-issuers" if tee == "snp" else "intel-platform"} | (
        {"nvidia-rim", "nvidia-status"} if gpus else set()
    )
    found = at_hand(wanted, store, roots=world.roots, now=now)
    assert found.collateral == world.collateral and found.lacking == ()
    assert now < found.until <= now + timedelta(days=30)
    assert all(is_answered(item, found.collateral) for item in wanted)


def test_a_chip_is_asked_for_where_its_host_gave_less(now: datetime, store: Store) -> None:
    world = World(now, "snp")
    world.fill(store)
    bundle = made(world)
    for certificates in (b"", replace(CertificateTable.parse(bundle.certificates), ark=None).pack()):
        items = for_bundle(replace(bundle, certificates=certificates), roots=world.roots, now=now)
        assert {type(item) for item in items} == {AMDChip, AMDIssuers}
        assert at_hand(items, store, roots=world.roots, now=now).certificates.vcek is not None


@pytest.mark.parametrize("tee", ["azure-snp", "azure-tdx"])
def test_behind_a_paravisor_it_is_the_hardware_that_asks(tee: Literal["azure-snp", "azure-tdx"]) -> None:
    (item,) = for_bundle(composite.bundle(tee), roots=composite.roots(), now=composite.NOW)
    assert item.kind == ("amd-issuers" if tee == "azure-snp" else "intel-platform")


@pytest.mark.parametrize("tee", ["snp", "tdx", "azure-snp", "azure-tdx"])
@pytest.mark.parametrize("change", [{"report": b"no report"}, {"certificates": b"no table"}, {}])
def test_what_cannot_be_read_asks_for_nothing(
    tee: Literal["snp", "tdx", "azure-snp", "azure-tdx"], change: dict[str, Any]
) -> None:
    broken = replace(composite.bundle(tee, devices=composite.gpus()), **change)
    items = for_bundle(broken, roots=composite.roots() if change else PRODUCTION, now=composite.NOW)
    if change:
        assert all(item.kind.startswith(("nvidia", "intel")) for item in items)
    else:  # GPUs of a root that nobody believes
        assert not any(item.kind.startswith("nvidia") for item in items)


@pytest.mark.parametrize("without", [NVIDIAManifest, NVIDIAStatus, AMDIssuers])
def test_what_is_absent_is_said_and_the_rest_is_there(
    without: type[Item], now: datetime, store: Store
) -> None:
    world = World(now, "snp", gpus=1)
    world.fill(store, without=without)
    bundle = made(world)
    found = at_hand(for_bundle(bundle, roots=world.roots, now=now), store, roots=world.roots, now=now)
    assert found.lacking and all(isinstance(item, without) for item in found.lacking)
    assert found.collateral and not any(is_answered(item, found.collateral) for item in found.lacking)
    assert all(is_answered(item, world.collateral) for item in found.lacking)


def test_nothing_is_there_without_a_directory_or_in_it_at_another_time(now: datetime, tmp_path: Path) -> None:
    world = World(now, "tdx", gpus=1)
    items = for_bundle(made(world), roots=world.roots, now=now)
    nowhere = at_hand(items, Store(tmp_path / "absent"), roots=world.roots, now=now)
    assert nowhere == Supplied(lacking=tuple(items))
    store = Store.create(tmp_path / "some")
    world.fill(store)
    assert not at_hand(items, store, roots=world.roots, now=now + timedelta(days=400)).collateral
    assert nothing(made(world)) == Supplied() and Supplied().until == FOREVER


def test_a_bundle_is_never_given_more_than_it_can_carry(
    now: datetime, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(now, "tdx", gpus=2)
    world.fill(store)
    items = for_bundle(made(world), roots=world.roots, now=now)
    whole = sum(len(data) for _, data in world.collateral)
    assert whole < MAX_BYTES
    monkeypatch.setattr("strongroom.host.collateral.supply.MAX_BYTES", whole // 2)
    found = at_hand(items, store, roots=world.roots, now=now)
    assert 0 < sum(len(data) for _, data in found.collateral) <= whole // 2 and found.lacking
    assert found.collateral.find(names.INTEL_TCB_INFO) is not None
    assert isinstance(found.collateral, Collateral)
