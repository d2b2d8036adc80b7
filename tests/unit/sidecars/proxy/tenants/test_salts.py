"""Mirrors sidecars/proxy/tenants/salts.py."""

import re

import pytest

from sidecars.proxy.plan import Cache, Tenant
from sidecars.proxy.tenants.roll import ANONYMOUS
from sidecars.proxy.tenants.salts import Salts

ANN, BOB = Tenant("ann"), Tenant("bob")
MANY = Tenant("many", aggregator=True)
FRESH = [bytes([n]) * 32 for n in range(2)]


def salt(
    tenant: Tenant,
    namespace: str = "",
    user: str = "",
    *,
    fresh: bytes = FRESH[0],
    key: bytes = bytes(32),
    cache: Cache = Cache.TENANT,
) -> str:
    return Salts(key, cache=cache, random=lambda _: fresh).salt(tenant, namespace=namespace, user=user)


@pytest.mark.guarantee("G13")
def test_salts_differ_between_tenants_and_are_stable_within_one() -> None:
    mine = salt(ANN)
    assert mine == salt(ANN, fresh=FRESH[1])
    assert mine != salt(BOB)
    assert mine != salt(ANN, key=bytes([1]) * 32)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", mine)


@pytest.mark.guarantee("G13")
def test_a_clients_own_salt_is_only_mixed_in_under_its_tenants() -> None:
    salts = {salt(tenant, name) for tenant in (ANN, BOB) for name in ("", "x", "y")}
    assert len(salts) == 6
    # neither another tenant's salt nor a boundary moved between name and namespace leads to that tenant's cache
    assert salt(ANN, salt(BOB)) not in salts
    assert salt(Tenant("an"), "n") not in salts


@pytest.mark.guarantee("G13")
def test_where_nobody_shares_every_request_has_its_own_salt() -> None:
    assert salt(ANN, cache=Cache.REQUEST) != salt(ANN, cache=Cache.REQUEST, fresh=FRESH[1])
    assert salt(ANONYMOUS) != salt(ANONYMOUS, fresh=FRESH[1])
    assert salt(ANONYMOUS, "x", "y") != salt(ANONYMOUS, "x", "y", fresh=FRESH[1])


@pytest.mark.guarantee("G13")
def test_behind_an_aggregator_each_person_has_a_cache_of_their_own() -> None:
    salts = {salt(MANY, name, user) for name in ("", "x") for user in ("", "x", "y")}
    assert len(salts) == 6
    assert salt(MANY, user="x") == salt(MANY, user="x", fresh=FRESH[1])
    assert salt(MANY, "x") == salt(MANY, "x", fresh=FRESH[1])


@pytest.mark.guarantee("G13")
def test_an_aggregators_request_for_nobody_shares_with_none() -> None:
    assert salt(MANY) != salt(MANY, fresh=FRESH[1])


def test_whom_anybody_else_names_changes_nothing() -> None:
    assert salt(ANN, user="x") == salt(ANN, user="y") == salt(ANN)


def test_a_salt_that_is_remembered_is_the_same_and_its_tenants_alone() -> None:
    salts = Salts(bytes(32), cache=Cache.TENANT, random=lambda _: FRESH[0])
    first = [salts.salt(tenant, namespace="", user="") for tenant in (ANN, BOB)]
    assert [salts.salt(tenant, namespace="", user="") for tenant in (ANN, BOB)] == first
    assert first == [salt(ANN), salt(BOB)]
    assert salts.salt(ANN, namespace="x", user="") == salt(ANN, "x") not in first
