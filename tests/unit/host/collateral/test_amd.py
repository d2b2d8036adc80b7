"""Mirrors host/collateral/amd.py: what AMD signed, simulated and genuine."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demo.silicon.mint import CURRENT_TCB, Silicon
from strongroom.errors import ConfigError, FormatError, StrongroomError, VerifyError
from strongroom.evidence.snp import SNPReport
from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.item import Parts
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import amd_certificates, collateral
from strongroom.host.collateral.wanted import for_snp_report
from strongroom.verify.roots import PRODUCTION, Roots
from strongroom.verify.snp import verify_report
from tests.fakes.amd import genuine, issuers, revocations
from tests.fakes.vendors import revocation_list

ISSUERS = AMDIssuers("Genoa", "vcek")


@pytest.fixture
def report(silicon: Silicon) -> SNPReport:
    return SNPReport.parse(silicon.report(bytes(64)))


@pytest.fixture
def chip(silicon: Silicon) -> AMDChip:
    return AMDChip("Genoa", silicon.pki.chip_id, CURRENT_TCB)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def chip_parts(silicon: Silicon) -> dict[str, bytes]:
    pki = silicon.pki
    return {"vcek": der(pki.vcek(CURRENT_TCB)), "ask": der(pki.ask), "ark": der(pki.ark)}


def issuers_parts(silicon: Silicon, now: datetime, **changes: Any) -> dict[str, bytes]:
    pki = silicon.pki
    crl = revocation_list(pki.ark.subject, pki.ark_key, **{"issued": now - timedelta(hours=1)} | changes)
    return {"ask": der(pki.ask), "ark": der(pki.ark), "crl": crl}


def test_what_a_report_takes_verifies_it(
    silicon: Silicon, report: SNPReport, chip: AMDChip, store: Store, roots: Roots, now: datetime
) -> None:
    wanted = for_snp_report(report)
    assert wanted == [chip, ISSUERS]
    store.put(Entry(chip, chip_parts(silicon)), roots=roots, now=now)
    store.put(Entry(ISSUERS, issuers_parts(silicon, now)), roots=roots, now=now)
    table = amd_certificates(wanted, store, roots=roots, now=now)
    endorsement = verify_report(report, table, roots=roots, now=now, crl=table.crl)
    assert endorsement.simulated and not endorsement.not_checked
    assert [name for name, _ in collateral(wanted, store, roots=roots, now=now)] == ["amd-crl"]


@pytest.mark.guarantee("G1")
def test_without_a_revocation_list_nothing_is_supplied(
    silicon: Silicon, report: SNPReport, chip: AMDChip, store: Store, roots: Roots, now: datetime
) -> None:
    store.put(Entry(chip, chip_parts(silicon)), roots=roots, now=now)
    with pytest.raises(VerifyError, match="not among the collateral kept"):
        amd_certificates(for_snp_report(report), store, roots=roots, now=now)


@pytest.mark.guarantee("G1")
def test_a_list_that_revokes_the_issuer_is_kept_and_refuses_the_report(
    silicon: Silicon, report: SNPReport, chip: AMDChip, store: Store, roots: Roots, now: datetime
) -> None:
    parts = issuers_parts(silicon, now, serials=(silicon.pki.ask.serial_number,))
    store.put(Entry(chip, chip_parts(silicon)), roots=roots, now=now)
    store.put(Entry(ISSUERS, parts), roots=roots, now=now)
    table = amd_certificates(for_snp_report(report), store, roots=roots, now=now)
    with pytest.raises(VerifyError, match="is revoked"):
        verify_report(report, table, roots=roots, now=now, crl=table.crl)


@pytest.mark.guarantee("G1")
def test_a_certificate_of_another_chip_or_level_is_refused(
    silicon: Silicon, chip: AMDChip, roots: Roots, now: datetime
) -> None:
    parts = chip_parts(silicon)
    assert chip.examine(parts, roots=roots, now=now).simulated
    for item, why in (
        (replace(chip, hwid=b"\1" * 64), "made for another chip"),
        (replace(chip, tcb=replace(CURRENT_TCB, snp=1)), "made for other patch levels"),
        (replace(chip, product="Milan"), "made for 'Genoa', want Milan"),
    ):
        with pytest.raises(VerifyError, match=why):
            item.examine(parts, roots=roots, now=now)
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        chip.examine(parts, roots=PRODUCTION, now=now)


def test_errors_are_ours_for_any_part_at_all(
    silicon: Silicon, chip: AMDChip, roots: Roots, now: datetime
) -> None:
    cases: list[tuple[AMDChip | AMDIssuers, Parts]] = [
        (chip, chip_parts(silicon)),
        (ISSUERS, issuers_parts(silicon, now)),
    ]
    for item, parts in cases:
        for name, part in parts.items():
            broken = bytearray(part)
            broken[-1] ^= 1
            for other in (b"", b"\0", part[:-1], part + b"\0", part[9:], bytes(broken)):
                with pytest.raises(StrongroomError):
                    item.examine({**parts, name: other}, roots=roots, now=now)
        with pytest.raises(FormatError, match=item.kind):
            item.examine({**parts, "more": b""}, roots=roots, now=now)


@pytest.mark.parametrize(("hours", "why"), [(-2, "valid from"), (31 * 24, "expired")])
def test_a_list_outside_of_its_time(
    silicon: Silicon, roots: Roots, now: datetime, hours: int, why: str
) -> None:
    with pytest.raises(VerifyError, match=why):
        ISSUERS.examine(issuers_parts(silicon, now), roots=roots, now=now + timedelta(hours=hours))


@pytest.mark.parametrize(
    "subject",
    [
        {},
        {"product": "Rome", "hwid": "00" * 64, "tcb": {}},
        {"product": "Genoa", "hwid": "00" * 64, "tcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 1}},
        {"product": "Genoa", "hwid": "0g", "tcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 1}},
        {"product": "Genoa", "hwid": "01" * 64, "tcb": {"bootloader": 1, "tee": 0, "snp": 1}},
        {
            "product": "Genoa",
            "hwid": "01" * 64,
            "tcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 256},
        },
        {
            "product": "Genoa",
            "hwid": "01" * 64,
            "tcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": True},
        },
        {"product": "Turin", "hwid": "01" * 8, "tcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 1}},
        {"product": "Genoa", "hwid": "01" * 64, "tcb": [1]},
        {"product": 5, "hwid": "01" * 64, "tcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 1}},
    ],
)
def test_a_chip_it_does_not_have(subject: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        AMDChip.from_subject(subject)


def test_a_leaf_it_does_not_have() -> None:
    with pytest.raises(FormatError, match="want vcek or vlek"):
        AMDIssuers.from_subject({"product": "Genoa", "leaf": "x"})


NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "product"), [("genoa-v3-azure", "Genoa"), ("turin-v5", "Turin"), ("milan-v2", "Milan")]
)
def test_genuine_chips(name: str, product: str) -> None:
    vector = genuine(name)
    report, table = SNPReport.parse(vector.report), vector.table
    chip = for_snp_report(report, product)[0]
    assert isinstance(chip, AMDChip) and AMDChip.from_subject(chip.subject()) == chip
    assert table.vcek and table.ask and table.ark
    signed = chip.examine({"vcek": table.vcek, "ask": table.ask, "ark": table.ark}, roots=PRODUCTION, now=NOW)
    assert not signed.simulated and not signed.is_due(NOW)


@pytest.mark.parametrize("file", ["milan", "genoa"])
def test_genuine_lists(file: str) -> None:
    genuine("milan-v2")  # or skip
    crl = revocations(f"{file}_crl")
    chain = issuers(f"{file}_ask_ark")
    assert chain.ask and chain.ark
    at = x509.load_der_x509_crl(crl).last_update_utc + timedelta(hours=1)
    item = AMDIssuers(file.capitalize(), "vcek")
    signed = item.examine({"ask": chain.ask, "ark": chain.ark, "crl": crl}, roots=PRODUCTION, now=at)
    assert signed.issued < at < signed.until and not signed.simulated and not signed.is_due(at)


def test_an_old_report_does_not_name_its_product() -> None:
    report = SNPReport.parse(genuine("milan-v2").report)
    with pytest.raises(ConfigError, match="does not name its product"):
        for_snp_report(report)


def test_a_hidden_chip_has_no_certificate_to_fetch(report: SNPReport) -> None:
    with pytest.raises(FormatError, match="not all zero"):
        for_snp_report(replace(report, chip_id=bytes(64)))


def test_a_vlek_comes_with_the_evidence() -> None:
    report = SNPReport.parse(genuine("milan-v3-vlek-vmpl1").report)
    assert for_snp_report(report) == [AMDIssuers("Milan", "vlek")]
