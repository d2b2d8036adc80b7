"""Mirrors demo/silicon/mint.py."""

from datetime import datetime

import pytest

from demo.silicon.mint import DEBUG, MIGRATION, POLICY
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.snp import TCB, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.roots import PRODUCTION
from strongroom.verify.snp import verify_report
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, roots, silicon

REPORT_DATA = bytes(range(64))


def test_a_report_says_what_the_launcher_fixed() -> None:
    report = SNPReport.parse(silicon().report(REPORT_DATA, vmpl=1))
    assert (report.version, report.cpuid_family, report.cpuid_model) == (3, 0x19, 0x11)
    assert (report.report_data, report.measurement, report.host_data) == (REPORT_DATA, MEASUREMENT, HOST_DATA)
    assert report.vmpl == 1
    assert not report.debug_allowed
    assert not report.migration_allowed
    assert report.report_id_ma == b"\xff" * 32


@pytest.mark.parametrize(
    "tcb", [TCB(bootloader=10, tee=0, snp=23, microcode=84), TCB(bootloader=1, tee=0, snp=8, microcode=200)]
)
def test_a_report_verifies_under_its_own_root(tcb: TCB, now: datetime) -> None:
    chip = silicon(tcb=tcb)
    report = SNPReport.parse(chip.report(REPORT_DATA))
    table = CertificateTable.parse(chip.certificates())
    endorsement = verify_report(report, table, roots=roots(chip), now=now)
    assert endorsement.simulated
    assert endorsement.product == "Genoa"
    assert endorsement.leaf == "vcek"


@pytest.mark.guarantee("G18")
def test_no_report_verifies_under_production_roots(now: datetime) -> None:
    chip = silicon()
    report = SNPReport.parse(chip.report(REPORT_DATA))
    table = CertificateTable.parse(chip.certificates())
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        verify_report(report, table, roots=PRODUCTION, now=now)


def test_policy_bits_are_in_the_signed_report() -> None:
    report = SNPReport.parse(silicon(policy=POLICY | DEBUG | MIGRATION).report(REPORT_DATA))
    assert report.debug_allowed
    assert report.migration_allowed


def test_a_leaf_of_another_level_does_not_fit(now: datetime) -> None:
    old = silicon(tcb=TCB(bootloader=1, tee=0, snp=8, microcode=1))
    report = SNPReport.parse(silicon().report(REPORT_DATA))
    with pytest.raises(VerifyError, match="patch levels are"):
        verify_report(report, CertificateTable.parse(old.certificates()), roots=roots(old), now=now)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_only_64_bytes_are_report_data(size: int) -> None:
    with pytest.raises(FormatError, match=f"report_data is {size} bytes, want 64"):
        silicon().report(bytes(size))
