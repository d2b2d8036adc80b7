"""Mirrors sidecars/proxy/ledger.py."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecars.proxy.ledger import Ledger
from sidecars.proxy.plan import Tenant
from strongroom.receipts.receipt import SignedReceipt, sign
from tests.fakes.exchange import receipt, receipt_bundle
from tests.fakes.silicon import silicon

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RECEIPT = receipt(receipt_bundle(silicon(), KEY))
ANN, BOB = Tenant("ann", b"a"), Tenant("bob", b"b")


def signed(number: int) -> SignedReceipt:
    return sign(replace(RECEIPT, id=f"{number:032x}"), KEY)


def test_only_the_owner_finds_a_receipt() -> None:
    ledger = Ledger()
    ledger.keep(ANN, signed(1), now=0)
    assert ledger.find(ANN, f"{1:032x}", now=1) == signed(1)
    assert ledger.find(BOB, f"{1:032x}", now=1) is None
    assert ledger.find(ANN, f"{2:032x}", now=1) is None


def test_it_forgets_after_an_hour() -> None:
    ledger = Ledger()
    ledger.keep(ANN, signed(1), now=0)
    assert ledger.find(ANN, f"{1:032x}", now=3599)
    assert ledger.find(ANN, f"{1:032x}", now=3600) is None
    ledger.keep(ANN, signed(2), now=3600)
    assert list(ledger._kept["ann"]) == [f"{2:032x}"]


def test_who_asks_no_more_is_forgotten_too() -> None:
    ledger = Ledger()
    ledger.keep(BOB, signed(0), now=0)
    ledger.keep(ANN, signed(1), now=3600)
    assert list(ledger._kept) == ["ann"]


def test_a_busy_tenant_pushes_out_only_its_own() -> None:
    ledger = Ledger(max_each=3)
    ledger.keep(BOB, signed(0), now=0)
    for number in range(1, 6):
        ledger.keep(ANN, signed(number), now=0)
    assert ledger.find(BOB, f"{0:032x}", now=1)
    assert [ledger.find(ANN, f"{n:032x}", now=1) is not None for n in range(1, 6)] == [
        False,
        False,
        True,
        True,
        True,
    ]
