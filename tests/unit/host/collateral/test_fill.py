"""Mirrors host/collateral/fill.py, against a local server that plays the services."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from demo.silicon.mint import CURRENT_TCB, Silicon
from strongroom.errors import FormatError, ProtocolError, TransportError, VerifyError
from strongroom.evidence.snp import SNPReport
from strongroom.host.collateral.client import Client
from strongroom.host.collateral.fill import Outcome, State, fill
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.wanted import for_snp_report
from strongroom.verify.roots import PRODUCTION, Roots
from tests.fakes.https import ok
from tests.fakes.vendors import BROKEN, BUSY, Played, Vendors, revocation_list


@pytest.fixture
def wanted(silicon: Silicon) -> list[Item]:
    return for_snp_report(SNPReport.parse(silicon.report(bytes(64))))


@pytest.fixture
def client(played: Played) -> Client:
    return Client(services=played.services, timeout_s=5, deadline_s=5, first_pause_s=0.001)


def run(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, *, always: bool = False
) -> list[Outcome]:
    return asyncio.run(fill(wanted, store, client, roots=roots, now=now, always=always))


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_an_empty_store_is_filled_and_then_left_alone(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    outcomes = run([*wanted, *wanted], store, client, roots, now)
    assert states(outcomes) == ["fetched", "fetched"]
    assert all(outcome.signed and outcome.signed.simulated and not outcome.is_trouble for outcome in outcomes)
    asked = len(vendors.asked)
    assert states(run(wanted, store, client, roots, now)) == ["fresh", "fresh"]
    assert len(vendors.asked) == asked == 4
    assert states(run(wanted, store, client, roots, now, always=True)) == ["fetched", "fetched"]


def test_a_chip_s_certificate_is_asked_for_as_amd_wants_it(
    wanted: list[Item],
    store: Store,
    client: Client,
    roots: Roots,
    now: datetime,
    vendors: Vendors,
    silicon: Silicon,
) -> None:
    run(wanted[:1], store, client, roots, now)
    tcb = CURRENT_TCB
    levels = f"blSPL={tcb.bootloader}&teeSPL={tcb.tee}&snpSPL={tcb.snp}&ucodeSPL={tcb.microcode}"
    assert vendors.asked[0] == f"/vcek/v1/Genoa/{silicon.pki.chip_id.hex()}?{levels}"


def test_a_list_is_asked_for_again_long_before_it_expires(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    run(wanted, store, client, roots, now)
    vendors.asked.clear()
    later = now + timedelta(days=1)
    assert states(run(wanted, store, client, roots, later)) == ["fresh", "fetched"]
    assert {path.rpartition("/")[2] for path in vendors.asked} == {"cert_chain", "crl"}


@pytest.mark.parametrize("first", [[BUSY], [BROKEN, BUSY]], ids=["busy", "broken, then busy"])
def test_a_service_that_is_away_for_a_while_is_asked_again(
    wanted: list[Item],
    store: Store,
    client: Client,
    roots: Roots,
    now: datetime,
    vendors: Vendors,
    first: list[bytes | None],
) -> None:
    vendors.first += first
    assert states(run(wanted, store, client, roots, now)) == ["fetched", "fetched"]


def test_an_outage_keeps_what_holds(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    run(wanted, store, client, roots, now)
    vendors.answers = dict.fromkeys(vendors.answers, BROKEN)
    client = replace(client, deadline_s=0)
    outcome = run(wanted, store, client, roots, now + timedelta(days=2))[1]
    assert outcome.state is State.KEPT and not outcome.is_trouble and outcome.signed
    assert isinstance(outcome.error, TransportError) and "answer is 503, want 200" in str(outcome.error)


@pytest.mark.guarantee("G1")
def test_an_outage_makes_nothing_hold_longer(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    run(wanted, store, client, roots, now)
    vendors.answers = dict.fromkeys(vendors.answers, BROKEN)
    after = now + timedelta(days=30)
    outcome = run(wanted, store, replace(client, deadline_s=0), roots, after)[1]
    assert outcome.state is State.FAILED and outcome.is_trouble and outcome.signed is None
    with pytest.raises(VerifyError, match="crl: expired"):
        store.take(wanted[1], roots=roots, now=after)


def test_silence_ends_with_the_time_for_an_answer(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    vendors.first.append(None)
    outcomes = run(wanted[:1], store, replace(client, timeout_s=0.2, deadline_s=0), roots, now)
    assert isinstance(outcomes[0].error, TransportError) and "no answer within 0.2 s" in str(
        outcomes[0].error
    )


def test_a_no_is_believed_at_once(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    vendors.answers.clear()
    outcomes = run(wanted[:1], store, client, roots, now)
    assert len(vendors.asked) == 1 and isinstance(outcomes[0].error, ProtocolError)
    assert "answer is 404, want 200" in str(outcomes[0].error) and outcomes[0].is_trouble


@pytest.mark.guarantee("G1")
def test_what_the_vendor_did_not_sign_is_never_kept(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    outcomes = run(wanted, store, client, PRODUCTION, now)
    assert states(outcomes) == ["failed", "failed"] and store.names() == []
    assert all("want the pinned Genoa root" in str(outcome.error) for outcome in outcomes)
    crl = next(path for path in vendors.answers if path.endswith("/crl"))
    answer = vendors.answers[crl]
    assert answer is not None
    vendors.answers[crl] = answer[:-1] + bytes((answer[-1] ^ 1,))
    assert states(run(wanted, store, client, roots, now)) == ["fetched", "failed"]
    assert len(store.names()) == 1


def test_a_forgery_is_trouble_even_where_something_good_is_kept(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime, vendors: Vendors
) -> None:
    run(wanted, store, client, roots, now)
    vendors.answers = dict.fromkeys(vendors.answers, ok(b"hello"))
    outcome = run(wanted, store, client, roots, now + timedelta(days=2))[1]
    assert outcome.state is State.KEPT and outcome.is_trouble and isinstance(outcome.error, FormatError)
    assert store.take(wanted[1], roots=roots, now=now)


@pytest.mark.guarantee("G1")
def test_an_older_list_does_not_replace_a_newer_one(
    wanted: list[Item],
    store: Store,
    client: Client,
    roots: Roots,
    now: datetime,
    vendors: Vendors,
    silicon: Silicon,
) -> None:
    run(wanted, store, client, roots, now)
    kept = store.take(wanted[1], roots=roots, now=now)
    old = revocation_list(silicon.pki.ark.subject, silicon.pki.ark_key, issued=now - timedelta(days=9))
    vendors.answers["/vcek/v1/Genoa/crl"] = ok(old)
    outcome = run(wanted, store, client, roots, now, always=True)[1]
    assert (
        outcome.state is State.KEPT and outcome.is_trouble and "older than what is kept" in str(outcome.error)
    )
    assert store.take(wanted[1], roots=roots, now=now) == kept


def test_a_damaged_entry_is_fetched_again(
    wanted: list[Item], store: Store, client: Client, roots: Roots, now: datetime
) -> None:
    run(wanted, store, client, roots, now)
    for name in store.names():
        (store.directory / f"{name}.json").write_bytes(b"{}")
    assert states(run(wanted, store, client, roots, now)) == ["fetched", "fetched"]
