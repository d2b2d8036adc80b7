"""Mirrors sidecars/proxy/gate.py."""

import re
from contextlib import ExitStack
from hashlib import sha256

import pytest

from sidecars.proxy.gate import ANONYMOUS, Gate
from sidecars.proxy.plan import Cache, Tenant
from strongroom.host.door.refusal import Refusal

ANN = Tenant("ann", sha256(b"token-a").digest())
BOB = Tenant("bob", sha256(b"token-b").digest())
FRESH = [bytes([n]) * 32 for n in range(2)]


def gate(
    *tenants: Tenant, cache: Cache = Cache.TENANT, key: bytes = bytes(32), most: int = 4, most_each: int = 2
) -> Gate:
    return Gate(tenants, cache=cache, salt_key=key, most=most, most_each=most_each)


def test_a_token_names_its_tenant() -> None:
    assert gate(ANN, BOB).admit(b"Bearer token-b") is BOB
    assert gate(ANN, BOB).admit(b"bearer token-a") is ANN


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer token-c",
        b"Basic token-a",
        b"token-a",
        b"Bearer token-a ",
        b"Bearer " + b"x" * 5000,
    ],
)
def test_every_other_header_gets_the_same_401(header: bytes | None) -> None:
    with pytest.raises(Refusal) as caught:
        gate(ANN, BOB).admit(header)
    assert (caught.value.status, caught.value.message) == (401, "unauthorized")
    assert caught.value.headers == {"www-authenticate": "Bearer"}


def test_without_tenants_everyone_is_anonymous() -> None:
    assert gate().admit(None) is ANONYMOUS
    assert gate().admit(b"Bearer whatever") is ANONYMOUS


def test_places_are_bounded_for_each_and_for_all() -> None:
    door = gate(ANN, BOB, most=3)
    with ExitStack() as inside:
        inside.enter_context(door.entered(ANN))
        inside.enter_context(door.entered(ANN))
        with pytest.raises(Refusal, match="429") as caught:
            inside.enter_context(door.entered(ANN))
        assert caught.value.headers == {"retry-after": "1"}
        inside.enter_context(door.entered(BOB))
        with pytest.raises(Refusal, match="429"):
            inside.enter_context(door.entered(BOB))
    with door.entered(ANN):
        pass


@pytest.mark.guarantee("G13")
def test_salts_differ_between_tenants_and_are_stable_within_one() -> None:
    door = gate(ANN, BOB)
    mine = door.salt(ANN, "", fresh=FRESH[0])
    assert mine == door.salt(ANN, "", fresh=FRESH[1])
    assert mine != door.salt(BOB, "", fresh=FRESH[0])
    assert mine != gate(ANN, key=bytes([1]) * 32).salt(ANN, "", fresh=FRESH[0])
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", mine)


@pytest.mark.guarantee("G13")
def test_a_clients_own_salt_is_only_mixed_in_under_its_tenants() -> None:
    door = gate(ANN, BOB)
    salts = {door.salt(tenant, name, fresh=FRESH[0]) for tenant in (ANN, BOB) for name in ("", "x", "y")}
    assert len(salts) == 6
    # neither another tenant's salt nor a boundary moved between name and namespace leads to that tenant's cache
    stolen = door.salt(BOB, "", fresh=FRESH[0])
    assert door.salt(ANN, stolen, fresh=FRESH[0]) not in salts
    moved = gate(Tenant("an", bytes(32))).salt(Tenant("an", bytes(32)), "n", fresh=FRESH[0])
    assert moved != door.salt(ANN, "", fresh=FRESH[0])


@pytest.mark.guarantee("G13")
def test_where_nobody_shares_every_request_has_its_own_salt() -> None:
    for door, tenant in ((gate(ANN, cache=Cache.REQUEST), ANN), (gate(), ANONYMOUS)):
        assert door.salt(tenant, "", fresh=FRESH[0]) != door.salt(tenant, "", fresh=FRESH[1])


@pytest.mark.guarantee("G11")
def test_token_hashes_are_not_shown() -> None:
    assert ANN.token_sha256.hex() not in repr(ANN) and "token" not in repr(ANN)
