"""Mirrors host/collateral/intel.py: Intel's service, played with collateral of our own and with genuine collateral."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.tdx import TDXQuote
from strongroom.host.collateral.client import Client
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.fill import Outcome, fill
from strongroom.host.collateral.intel import IntelPlatform, collateral_of, parts_of
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import collateral
from strongroom.host.collateral.wanted import for_tdx_quote
from strongroom.verify.roots import PRODUCTION, Roots
from strongroom.verify.tdx import verify_quote
from strongroom.verify.tdx_collateral import TDXCollateral
from tests import VECTORS
from tests.fakes.intel import FMSPC, NOW, Platform, tcb_info
from tests.fakes.vendors import Vendors, playing

ITEM = IntelPlatform(FMSPC, "platform")


def filled(
    tmp_path: Path, collateral: TDXCollateral, roots: Roots, now: datetime, item: IntelPlatform = ITEM
) -> tuple[Outcome, Store]:
    vendors, store = Vendors(), Store.create(tmp_path / "cache")
    vendors.intel(collateral, fmspc=item.fmspc.hex(), ca=item.ca)
    with playing(tmp_path, vendors) as played:
        client = Client(services=played.services, deadline_s=0)
        (outcome,) = asyncio.run(fill([item], store, client, roots=roots, now=now, always=True))
    return outcome, store


def test_what_a_quote_takes_is_fetched_and_verifies_it(tmp_path: Path) -> None:
    platform = Platform()
    quote = platform.quote()
    assert for_tdx_quote(quote) == [ITEM]
    published = platform.collateral()
    outcome, store = filled(tmp_path, published, platform.roots, NOW)
    assert outcome.state == "fetched" and outcome.signed is not None and outcome.signed.simulated
    kept = collateral_of(store.take(ITEM, roots=platform.roots, now=NOW))
    assert kept == published
    claims = verify_quote(quote, kept, roots=platform.roots, now=NOW)
    assert claims.valid_until == outcome.signed.until
    carried = collateral([ITEM], store, roots=platform.roots, now=NOW)
    assert carried.find("intel-tcb-info") == kept.tcb_info and len(carried.entries) == 7


def test_revoked_news_is_kept_and_refuses_the_quote(tmp_path: Path) -> None:
    platform = Platform()
    revoked = replace(platform, revoked=frozenset({platform.pck.serial, platform.signer.serial}))
    outcome, store = filled(tmp_path, revoked.collateral(), platform.roots, NOW)
    assert outcome.state == "fetched"
    kept = collateral_of(store.take(ITEM, roots=platform.roots, now=NOW))
    with pytest.raises(VerifyError, match="is revoked"):
        verify_quote(platform.quote(), kept, roots=platform.roots, now=NOW)


def flipped(name: str) -> Callable[[TDXCollateral], TDXCollateral]:
    def change(collateral: TDXCollateral) -> TDXCollateral:
        part = bytearray(getattr(collateral, name))
        part[-9 if name.endswith("crl") else len(part) // 2] ^= 1
        return replace(collateral, **{name: bytes(part)})

    return change


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    "name", ["tcb_info", "tcb_info_chain", "qe_identity", "root_crl", "pck_crl", "pck_crl_chain"]
)
def test_what_intel_did_not_sign_is_never_kept(tmp_path: Path, name: str) -> None:
    platform = Platform()
    outcome, store = filled(tmp_path, flipped(name)(platform.collateral()), platform.roots, NOW)
    assert outcome.state == "failed" and outcome.is_trouble and store.names() == []


def test_other_roots_and_other_platforms_are_refused() -> None:
    platform = Platform()
    parts = parts_of(platform.collateral())
    for item, roots, why in (
        (ITEM, PRODUCTION, "want the pinned intel root"),
        (IntelPlatform(bytes(6), "platform"), platform.roots, "tcb info: is for fmspc"),
        (IntelPlatform(FMSPC, "processor"), platform.roots, "want Intel SGX PCK Processor CA"),
    ):
        with pytest.raises(VerifyError, match=why):
            item.examine(parts, roots=roots, now=NOW)
    with pytest.raises(FormatError, match="want pck_crl"):
        ITEM.examine({**parts, "extra": b""}, roots=platform.roots, now=NOW)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("days", [-40, 40])
def test_nothing_holds_outside_of_its_time(days: int) -> None:
    platform = Platform()
    with pytest.raises(VerifyError, match=r"expired|valid from"):
        ITEM.examine(parts_of(platform.collateral()), roots=platform.roots, now=NOW + timedelta(days=days))


@pytest.mark.guarantee("G1")
def test_an_older_evaluation_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    platform = Platform()
    store = Store.create(tmp_path / "cache")
    store.put(Entry(ITEM, parts_of(platform.collateral())), roots=platform.roots, now=NOW)
    older = replace(platform, tcb_info=tcb_info(lambda info: info.update(tcbEvaluationDataNumber=1)))
    with pytest.raises(VerifyError, match="older than what is kept"):
        store.put(Entry(ITEM, parts_of(older.collateral())), roots=platform.roots, now=NOW)


@pytest.mark.parametrize("header", ["TCB-Info", "SGX-Enclave-Identity", "SGX-PCK-CRL"])
def test_an_answer_without_the_chain_of_its_signer(tmp_path: Path, header: str) -> None:
    platform, vendors = Platform(), Vendors()
    vendors.intel(platform.collateral(), fmspc=FMSPC.hex())
    vendors.answers = {
        path: answer and answer.replace(f"{header}-Issuer-Chain".encode(), b"X-Other")
        for path, answer in vendors.answers.items()
    }
    with playing(tmp_path, vendors) as played:
        client = Client(services=played.services, deadline_s=0)
        store = Store.create(tmp_path / "cache")
        (outcome,) = asyncio.run(fill([ITEM], store, client, roots=platform.roots, now=NOW))
    assert f"no header {header.lower()}-issuer-chain" in str(outcome.error)


GENUINE = (
    ("v4-uptodate", "b0c06f000000-2025-06", datetime.fromisoformat("2025-06-19T12:00:00Z")),
    ("v5-uptodate", "90c06f000000-2026-02", datetime.fromisoformat("2026-02-18T12:00:00Z")),
)


@pytest.mark.parametrize(("vector", "file", "at"), GENUINE)
def test_genuine_collateral_is_fetched_and_verifies_a_genuine_quote(
    tmp_path: Path, vector: str, file: str, at: datetime
) -> None:
    path = VECTORS / "tdx/collateral" / f"{file}.json"
    if not path.exists():
        pytest.skip("no real vectors beside this checkout")
    quote = TDXQuote.parse((VECTORS / "tdx" / vector / "quote.bin").read_bytes())
    (item,) = for_tdx_quote(quote)
    assert isinstance(item, IntelPlatform)
    outcome, store = filled(
        tmp_path, TDXCollateral.from_json(json.loads(path.read_text())), PRODUCTION, at, item
    )
    assert outcome.state == "fetched" and outcome.signed is not None and not outcome.signed.simulated
    kept = collateral_of(store.take(item, roots=PRODUCTION, now=at))
    assert verify_quote(quote, kept, roots=PRODUCTION, now=at).tcb_status == "UpToDate"


@pytest.mark.parametrize(
    "subject",
    [
        {},
        {"fmspc": "90C06F000000", "ca": "platform"},
        {"fmspc": "90c06f0000", "ca": "platform"},
        {"fmspc": "90c06f000000", "ca": "root"},
        {"fmspc": 5, "ca": "platform"},
        {"fmspc": "90c06f000000", "ca": "platform", "x": 1},
    ],
)
def test_a_subject_it_does_not_have(subject: dict[str, str]) -> None:
    with pytest.raises(FormatError, match="intel-platform"):
        IntelPlatform.from_subject({**subject})


def test_errors_are_ours_for_any_part_at_all() -> None:
    platform = Platform()
    parts = dict(parts_of(platform.collateral()))
    for name, part in parts.items():
        for broken in (b"", b"\0", part[:-2], part + b"\n\n", part[len(part) // 2 :]):
            with pytest.raises(StrongroomError):
                ITEM.examine(parts | {name: broken}, roots=platform.roots, now=NOW)
