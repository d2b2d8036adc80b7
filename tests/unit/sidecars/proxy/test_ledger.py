"""Mirrors sidecars/proxy/ledger.py."""

from sidecars.proxy.ledger import Entry, Ledger
from sidecars.proxy.plan import Tenant

ANN, BOB = Tenant("ann", b"a"), Tenant("bob", b"b")


def entry(number: int, *, at: int = 0) -> Entry:
    return Entry(
        id=name(number),
        served_at=at,
        endpoint="/v1/chat/completions",
        complete=True,
        stream=False,
        cache="tenant",
        request_sha256=bytes(32),
        forwarded_sha256=bytes(32),
        response_sha256=bytes(32),
        wire_sha256=bytes(32),
    )


def name(number: int) -> str:
    return f"{number:032x}"


def test_only_the_owner_finds_an_answer() -> None:
    ledger = Ledger()
    ledger.keep(ANN, entry(1), now=0)
    assert ledger.find(ANN, name(1), now=1) == entry(1)
    assert ledger.find(BOB, name(1), now=1) is None
    assert ledger.find(ANN, name(2), now=1) is None


def test_it_forgets_after_an_hour() -> None:
    ledger = Ledger()
    ledger.keep(ANN, entry(1), now=0)
    assert ledger.find(ANN, name(1), now=3599)
    assert ledger.find(ANN, name(1), now=3600) is None
    ledger.keep(ANN, entry(2, at=3600), now=3600)
    assert list(ledger._kept["ann"]) == [name(2)] and len(ledger) == 1


def test_who_asks_no_more_is_forgotten_too() -> None:
    ledger = Ledger()
    ledger.keep(BOB, entry(0), now=0)
    ledger.keep(ANN, entry(1, at=3600), now=3600)
    assert list(ledger._kept) == ["ann"]


def test_what_is_old_when_it_comes_is_not_found() -> None:
    ledger = Ledger()
    ledger.keep(ANN, entry(1), now=3600)
    assert ledger.find(ANN, name(1), now=3600) is None and len(ledger) == 0


def test_a_busy_tenant_pushes_out_only_its_own() -> None:
    ledger = Ledger(max_each=3)
    ledger.keep(BOB, entry(0), now=0)
    for number in range(1, 6):
        ledger.keep(ANN, entry(number), now=0)
    assert ledger.find(BOB, name(0), now=1)
    held = [ledger.find(ANN, name(n), now=1) is not None for n in range(1, 6)]
    assert held == [False, False, True, True, True]


def test_together_they_are_bounded_at_the_cost_of_whoever_has_most() -> None:
    ledger = Ledger(max_all=4)
    ledger.keep(BOB, entry(0), now=0)
    for number in range(1, 6):
        ledger.keep(ANN, entry(number), now=0)
    assert len(ledger) == 4 and ledger.find(BOB, name(0), now=1)
    assert ledger.find(ANN, name(2), now=1) is None and ledger.find(ANN, name(3), now=1)


def test_the_same_answer_again_counts_once() -> None:
    ledger = Ledger()
    ledger.keep(ANN, entry(1), now=0)
    ledger.keep(ANN, entry(1), now=0)
    assert len(ledger) == 1
