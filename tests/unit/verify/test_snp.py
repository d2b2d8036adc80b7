"""Mirrors strongroom/verify/snp.py: every SNP vector of the shared set, then what a forger would try."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from demo.silicon.mint import CURRENT_TCB
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.snp import SIGNED_SIZE, TCB, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.roots import PRODUCTION, RootPin, Roots
from strongroom.verify.snp import Endorsement, product_by_cpuid, verify_report
from tests.fakes.amd import Genuine, every_genuine, genuine, issuers, needs_vectors, revocations
from tests.fakes.silicon import roots, silicon

GOOD: Final = {
    "milan-v2-debug-policy",
    "milan-v2",
    "milan-v2-azure-cur-gt-rep",
    "milan-v3-vlek-vmpl1",
    "milan-v3-rep-lt-committed",
    "turin-v5",
    "genoa-v3-azure",
}
REFUSED: Final = {  # and how we say what index.json expects
    "milan-v4-gcp-nokey": "vcek: neither the evidence nor the verifier has this certificate",
    "neg-vcek-invalid-legacy": "vcek: signature is not SEV-Milan's",
    "neg-vcek-invalid-new": "vcek: signature is not SEV-Milan's",
    "neg-sig-r-bitflip": "snp report: signature is not",
    "neg-measurement-bitflip": "snp report: signature is not",
    "neg-report-data-bitflip": "snp report: signature is not",
    "neg-sig-r-high-garbage": "snp report: reserved bytes",
    "neg-truncated": "got 1183 bytes, want 1184",
    "neg-trailing-byte": "got 1185 bytes, want 1184",
    "neg-turin-parsed-as-milan-leaf": "cpuid says Turin, its certificate 'Milan'",
}
NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
VLEK_NOW: Final = datetime(2025, 6, 1, tzinfo=UTC)  # that leaf was valid for a year
SILICON: Final = silicon()
SIMULATED: Final = SNPReport.parse(SILICON.report(bytes(64)))
SIMULATED_TABLE: Final = CertificateTable.parse(SILICON.certificates())


def verify(vector: Genuine, **changes: Any) -> Endorsement:
    arguments: dict[str, Any] = {
        "roots": PRODUCTION,
        "now": VLEK_NOW if vector.table.vlek else NOW,
        "table": vector.table,
    }
    arguments |= changes
    return verify_report(SNPReport.parse(vector.report), arguments.pop("table"), **arguments)


@needs_vectors
def test_every_vector_has_a_verdict_here() -> None:
    assert {vector.name for vector in every_genuine()} == GOOD | REFUSED.keys()


@pytest.mark.parametrize("name", sorted(GOOD))
def test_genuine_reports_verify(name: str) -> None:
    vector = genuine(name)
    endorsement = verify(vector)
    assert endorsement.product == vector.expect["product"]
    assert f"SEV-{endorsement.leaf.upper()}" == vector.expect["leaf_kind"]
    assert endorsement.chip_id.hex() == vector.expect["fields"]["chip_id"]
    assert endorsement.root_sha256 == PRODUCTION.amd[endorsement.product].ark_sha256
    assert not endorsement.simulated
    assert endorsement.not_checked == ("revocation of the ask: no revocation list given",)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_bad_reports_are_refused(name: str) -> None:
    with pytest.raises((VerifyError, FormatError), match=REFUSED[name]):
        verify(genuine(name))


def test_a_vlek_names_its_cloud() -> None:
    endorsement = verify(genuine("milan-v3-vlek-vmpl1"))
    assert (endorsement.leaf, endorsement.csp_id) == ("vlek", "CN=cc-us-east-2.amazonaws.com")


@pytest.mark.parametrize("name", ["milan-v3-rep-lt-committed", "turin-v5"])
def test_no_byte_of_a_genuine_report_may_change(name: str) -> None:
    vector = genuine(name)
    for at in [*range(SIGNED_SIZE), *range(0x2A0, 0x2D0), *range(0x2E8, 0x318)]:
        data = bytearray(vector.report)
        data[at] ^= 1 << at % 8
        with pytest.raises((VerifyError, FormatError)):
            verify(replace(vector, report=bytes(data)))


@pytest.mark.parametrize(
    ("name", "now", "why"),
    [
        ("milan-v2", datetime(2022, 1, 1, tzinfo=UTC), "vcek: valid from 2023-04-03"),
        ("milan-v2", datetime(2031, 1, 1, tzinfo=UTC), "vcek: expired 2030-04-03"),
        ("milan-v3-vlek-vmpl1", NOW, "vlek: expired 2025-12-10"),
        ("turin-v5", datetime(2023, 1, 1, tzinfo=UTC), "ark: valid from 2023-05-15"),
    ],
)
def test_certificates_hold_only_in_their_time(name: str, now: datetime, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(genuine(name), now=now)


@pytest.mark.parametrize("missing", ["ask", "ark", "vcek"])
def test_a_missing_certificate_is_named(missing: str) -> None:
    vector = genuine("genoa-v3-azure")
    table = replace(vector.table, **{missing: None})
    with pytest.raises(
        VerifyError, match=f"{missing}: neither the evidence nor the verifier has this certificate"
    ):
        verify(vector, table=table)


def test_the_callers_issuers_fill_in_and_win() -> None:
    vector = genuine("genoa-v3-azure")
    own = issuers("genoa_ask_ark")
    verify(vector, table=CertificateTable(vcek=vector.table.vcek), issuers=own)
    verify(vector, table=replace(vector.table, ask=b"junk", ark=b"junk"), issuers=own)


def test_a_pin_holds_for_its_own_product() -> None:
    swapped = Roots(amd={"Milan": PRODUCTION.amd["Genoa"], "Genoa": PRODUCTION.amd["Milan"]})
    with pytest.raises(VerifyError, match=r"ark: sha256 is 69d063.*, want the pinned Milan root"):
        verify(genuine("milan-v2"), roots=swapped)
    with pytest.raises(VerifyError, match="want the pinned Turin root"):
        verify(genuine("turin-v5"), roots=swapped)


def test_issuers_of_another_product_are_refused() -> None:
    vector = genuine("genoa-v3-azure")
    milan, genoa = issuers("milan_ask_ark"), issuers("genoa_ask_ark")
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        verify(vector, issuers=milan)
    with pytest.raises(VerifyError, match="ask: name is SEV-Milan, want SEV-Genoa"):
        verify(vector, issuers=CertificateTable(ask=milan.ask, ark=genoa.ark))


@pytest.mark.parametrize(
    ("name", "file", "why"),
    [
        ("milan-v2", "milan_asvk_ark", "ask: name is SEV-VLEK-Milan, want SEV-Milan"),
        ("milan-v3-vlek-vmpl1", "milan_ask_ark", "ask: name is SEV-Milan, want SEV-VLEK-Milan"),
    ],
)
def test_asvk_and_ask_do_not_stand_in_for_each_other(name: str, file: str, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(genuine(name), issuers=issuers(file))


def test_an_intermediate_is_no_leaf_and_a_leaf_no_intermediate() -> None:
    vector = genuine("milan-v2")
    with pytest.raises(VerifyError, match="no product name extension"):
        verify(vector, table=replace(vector.table, vcek=vector.table.ask))
    with pytest.raises(VerifyError, match="ask: name is SEV-VCEK, want SEV-Milan"):
        verify(vector, table=replace(vector.table, ask=vector.table.vcek))


@pytest.mark.parametrize("junk", [b"junk", b"\x30\x00", b"\x30\x82\xff\xff"])
def test_what_is_no_certificate_is_refused(junk: bytes) -> None:
    vector = genuine("milan-v2")
    for role in ("vcek", "ask", "ark"):
        with pytest.raises(VerifyError, match=f"{role}: not a certificate we can read"):
            verify(vector, table=replace(vector.table, **{role: junk}))


def test_certificates_with_trailing_bytes_are_refused() -> None:
    vector = genuine("milan-v2")
    with pytest.raises(VerifyError, match="vcek: not a certificate we can read"):
        verify(vector, table=replace(vector.table, vcek=(vector.table.vcek or b"") + b"\0"))


def test_a_flipped_bit_in_any_certificate_is_refused() -> None:
    vector = genuine("milan-v2")
    for role in ("vcek", "ask", "ark"):
        der = getattr(vector.table, role)
        for at in range(0, len(der), 7):
            changed = der[:at] + bytes((der[at] ^ 0x10,)) + der[at + 1 :]
            with pytest.raises(VerifyError):
                verify(vector, table=replace(vector.table, **{role: changed}))


def test_a_revocation_list_is_looked_at() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    endorsement = verify(genuine("milan-v2"), crl=revocations("milan_crl"), now=now)
    assert endorsement.not_checked == ()
    assert "revocation" in [check.name for check in endorsement.checks]


@pytest.mark.parametrize(
    ("file", "now", "why"),
    [
        ("milan_crl", NOW, "crl: expired 2026-05-12"),
        ("milan_crl", datetime(2025, 1, 1, tzinfo=UTC), "crl: valid from 2025-05-06"),
        ("genoa_crl", datetime(2025, 6, 1, tzinfo=UTC), "crl: issuer is ARK-Genoa, want ARK-Milan"),
    ],
)
def test_a_stale_or_foreign_revocation_list_is_refused(file: str, now: datetime, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(genuine("milan-v2"), crl=revocations(file), now=now)


def test_a_changed_revocation_list_is_refused() -> None:
    vector, now = genuine("milan-v2"), datetime(2026, 1, 1, tzinfo=UTC)
    crl = revocations("milan_crl")
    for at in range(len(crl)):
        with pytest.raises(VerifyError):
            verify(vector, crl=crl[:at] + bytes((crl[at] ^ 0x10,)) + crl[at + 1 :], now=now)


def test_a_revoked_intermediate_is_refused_without_a_list_too() -> None:
    assert PRODUCTION.amd["Genoa"].revoked_serials == {0x20001}
    pin = RootPin(PRODUCTION.amd["Genoa"].ark_sha256, revoked_serials=frozenset({0x20002}))
    with pytest.raises(VerifyError, match="ask: serial 0x20002 is revoked"):
        verify(genuine("genoa-v3-azure"), roots=Roots(amd={"Genoa": pin}))


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_believed_only_by_who_names_its_root() -> None:
    endorsement = verify_report(SIMULATED, SIMULATED_TABLE, roots=roots(SILICON), now=NOW)
    assert endorsement.simulated
    assert "simulated" in endorsement.checks[0].detail
    for others in (PRODUCTION, PRODUCTION.with_insecure([bytes(32)])):
        with pytest.raises(VerifyError, match="want the pinned Genoa root"):
            verify_report(SIMULATED, SIMULATED_TABLE, roots=others, now=NOW)


def resigned(report: SNPReport, **changes: Any) -> SNPReport:
    return SILICON.sign(replace(report, **changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"signature_algo": 2}, "signature_algo is 2, want 1"),
        ({"key_info": 28}, "key_info is 0x1c, want a VCEK or VLEK signature"),
        ({"key_info": 8}, "key_info is 0x8"),
        ({"key_info": 4}, "vlek: neither the evidence nor the verifier has this certificate"),
        ({"chip_id": bytes(64)}, "chip_id is masked"),
        ({"chip_id": b"\1" * 64}, "vcek: hardware id differs from the report's chip_id"),
        ({"cpuid_model": 1}, "cpuid says Milan, its certificate 'Genoa'"),
        ({"cpuid_model": 0x20}, "processor family 0x19 model 0x20 is not known"),
        ({"cpuid_family": 0x17}, "processor family 0x17 model 0x11 is not known"),
        ({"reported_tcb": replace(CURRENT_TCB, microcode=83)}, "vcek: patch levels are .*microcode=84.*=83"),
        ({"reported_tcb": replace(CURRENT_TCB, snp=24)}, "vcek: patch levels are"),
        ({"current_tcb": replace(CURRENT_TCB, snp=22)}, "current tcb is .*snp=22.*, below reported .*snp=23"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_well_signed_report_can_still_be_spliced(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify_report(resigned(SIMULATED, **changes), SIMULATED_TABLE, roots=roots(SILICON), now=NOW)


def test_version_2_has_no_cpuid_and_takes_the_leafs_product() -> None:
    old = resigned(SIMULATED, version=2, cpuid_family=0, cpuid_model=0, cpuid_stepping=0)
    assert verify_report(old, SIMULATED_TABLE, roots=roots(SILICON), now=NOW).product == "Genoa"


def test_a_bergamo_is_a_genoa() -> None:
    report = resigned(SIMULATED, cpuid_model=0xA0)
    assert verify_report(report, SIMULATED_TABLE, roots=roots(SILICON), now=NOW).product == "Genoa"


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (2**384 - 1, 1)])
def test_degenerate_signatures_are_refused(r: int, s: int) -> None:
    with pytest.raises(VerifyError, match="signature is not"):
        verify_report(
            replace(SIMULATED, signature_r=r, signature_s=s), SIMULATED_TABLE, roots=roots(SILICON), now=NOW
        )


def test_a_chip_at_another_level_has_another_key() -> None:
    lowered = TCB(bootloader=9, tee=0, snp=20, microcode=70)
    other = silicon(tcb=lowered)
    report = SNPReport.parse(other.report(bytes(64)))
    verify_report(report, CertificateTable.parse(other.certificates()), roots=roots(other), now=NOW)
    with pytest.raises(VerifyError, match="vcek: patch levels are"):
        verify_report(report, SIMULATED_TABLE, roots=roots(other), now=NOW)


def test_time_is_an_argument() -> None:
    late = NOW + timedelta(days=8 * 365)
    with pytest.raises(VerifyError, match="vcek: expired"):
        verify_report(SIMULATED, SIMULATED_TABLE, roots=roots(SILICON), now=late)


@needs_vectors
@pytest.mark.parametrize(
    ("name", "product"), [("milan-v2", None), ("genoa-v3-azure", "Genoa"), ("turin-v5", "Turin")]
)
def test_a_report_names_its_product_since_version_3(name: str, product: str | None) -> None:
    assert product_by_cpuid(SNPReport.parse(genuine(name).report)) == product
