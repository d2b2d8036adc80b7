"""Mirrors sidecars/proxy/tenants/roll.py."""

from hashlib import sha256

import pytest

from sidecars.proxy.plan import Tenant
from sidecars.proxy.tenants.roll import ANONYMOUS, Roll
from strongroom.host.door.refusal import Refusal

ANN = Tenant("ann", sha256(b"token-a").digest())
BOB = Tenant("bob", sha256(b"token-b").digest())
CID = Tenant("cid", certificate=b"certificate-c")
DAN = Tenant("dan", sha256(b"token-d").digest(), b"certificate-d")
ROLL = Roll([ANN, BOB, CID, DAN])


@pytest.mark.parametrize(
    ("authorization", "certificate", "tenant"),
    [
        (b"Bearer token-a", None, ANN),
        (b"bearer token-b", None, BOB),
        (None, b"certificate-c", CID),
        (b"Bearer what a client library must send", b"certificate-c", CID),
        (b"Bearer token-d", b"certificate-d", DAN),
    ],
)
def test_credentials_name_their_tenant(
    authorization: bytes | None, certificate: bytes | None, tenant: Tenant
) -> None:
    assert ROLL.admit(authorization, certificate) is tenant


@pytest.mark.parametrize(
    ("authorization", "certificate"),
    [
        (None, None),
        (b"", None),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Bearer token-c", None),
        (b"Basic token-a", None),
        (b"token-a", None),
        (b"Bearer token-a ", None),
        (b"Bearer  token-a", None),
        (b"Bearer " + b"x" * 5000, None),
        (None, b"certificate-x"),
        (None, b""),
        (b"Bearer token-x", b"certificate-x"),
        (b"Bearer token-d", None),
        (None, b"certificate-d"),
        (b"Bearer token-x", b"certificate-d"),
        (b"Bearer token-a", b"certificate-c"),
        (b"Bearer token-a", b"certificate-d"),
        (b"Bearer token-d", b"certificate-c"),
    ],
)
def test_everything_else_gets_the_same_401(authorization: bytes | None, certificate: bytes | None) -> None:
    with pytest.raises(Refusal) as caught:
        ROLL.admit(authorization, certificate)
    assert (caught.value.status, caught.value.message) == (401, "unauthorized")
    assert caught.value.headers == {"www-authenticate": "Bearer"}


def test_a_token_longer_than_any_is_refused_even_where_its_beginning_is_known() -> None:
    long = b"x" * 1024
    roll = Roll([Tenant("long", sha256(long).digest())])
    assert roll.admit(b"Bearer " + long, None).name == "long"
    with pytest.raises(Refusal, match="401"):
        roll.admit(b"Bearer " + long + b"x", None)


def test_the_hash_of_nothing_opens_nothing() -> None:
    with pytest.raises(Refusal, match="401"):
        Roll([CID]).admit(b"Bearer " + bytes(32), None)


def test_without_tenants_everyone_is_anonymous() -> None:
    assert Roll([]).admit(None, None) is ANONYMOUS
    assert Roll([]).admit(b"Bearer whatever", b"whatever") is ANONYMOUS


@pytest.mark.guarantee("G11")
def test_credentials_are_not_shown() -> None:
    assert "token" not in repr(DAN) and "certificate" not in repr(DAN)
