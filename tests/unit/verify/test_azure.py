"""Mirrors strongroom/verify/azure.py."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from demo.silicon.mint import DEBUG, POLICY
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDReport, TDReportBody, TDXQuote
from strongroom.evidence.tpm import Hash, Scheme, TPMQuote, TPMSignature
from strongroom.verify.azure import AzureClaims, AzureEvidence, verify_azure_snp, verify_azure_tdx
from strongroom.verify.roots import PRODUCTION
from tests import VECTORS
from tests.fakes.amd import issuers
from tests.fakes.silicon import roots, silicon
from tests.fakes.tpm import NONCE, NOW, PCRS, hcl, rsa_tpm, runtime_data

INDEX: Final = VECTORS / "index.json"
VECTOR: Final = {v["id"]: v for v in (json.loads(INDEX.read_text())["vectors"] if INDEX.exists() else [])}
needs_vectors: Final = pytest.mark.skipif(not VECTOR, reason="no real vectors beside this checkout")
WANTED: Final = frozenset(PCRS)
ALL: Final = frozenset(range(24))
TPM: Final = rsa_tpm()
SILICON: Final = silicon()
TABLE: Final = CertificateTable.parse(SILICON.certificates())
REAL_NOW: Final = datetime(2026, 6, 20, tzinfo=UTC)
BODY: Final = TDReportBody(
    tee_tcb_svn=bytes(16),
    mr_seam=bytes(48),
    mrsigner_seam=bytes(48),
    seam_attributes=0,
    td_attributes=1 << 28,
    xfam=0x600E7,
    mr_td=b"\1" * 48,
    mr_config_id=bytes(48),
    mr_owner=bytes(48),
    mr_owner_config=bytes(48),
    rtmr0=bytes(48),
    rtmr1=bytes(48),
    rtmr2=bytes(48),
    rtmr3=bytes(48),
    report_data=bytes(64),
    tee_tcb_svn2=bytes(16),
    mr_service_td=bytes(48),
)


@dataclass(frozen=True)
class TD:
    """A quote somebody else has verified."""

    body: TDReportBody
    simulated: bool = True


def evidence(
    variable_data: bytes | None = None, *, vmpl: int = 0, policy: int = POLICY, **changes: Any
) -> AzureEvidence:
    data = runtime_data(TPM) if variable_data is None else variable_data
    report_data = Hash.SHA256.digest(data).ljust(64, b"\0")
    quote, signature = TPM.quote()
    made = AzureEvidence(
        hcl=hcl(data, silicon(policy=policy).report(report_data, vmpl=vmpl)),
        quote=quote,
        signature=signature,
        pcrs=PCRS,
    )
    return replace(made, **changes)


def td_evidence(variable_data: bytes | None = None, **changes: Any) -> tuple[AzureEvidence, TDReportBody]:
    """Evidence of a TD, and the body its quote would have."""
    data = runtime_data(TPM) if variable_data is None else variable_data
    body = replace(BODY, report_data=Hash.SHA256.digest(data).ljust(64, b"\0"), **changes)
    report = TDReport(version=0, cpu_svn=bytes(16), mac=bytes(32), valid=b"\xff" * 8, body=body)
    quote, signature = TPM.quote()
    inside = hcl(data, report.pack(), ReportType.TDX)
    return AzureEvidence(hcl=inside, quote=quote, signature=signature, pcrs=PCRS), body


def verify(given: AzureEvidence, nonce: bytes = NONCE, wanted: frozenset[int] = WANTED) -> AzureClaims:
    return verify_azure_snp(given, TABLE, nonce=nonce, wanted=wanted, roots=roots(SILICON), now=NOW)


def real(name: str) -> tuple[AzureEvidence, dict[str, Any], dict[str, Any]]:
    vector = VECTOR[name]
    files = {role: VECTORS / file for role, file in vector["files"].items()}
    pcrs = json.loads(files["pcrs"].read_text())
    made = AzureEvidence(
        hcl=HCLReport.parse(files["hcl"].read_bytes()),
        quote=TPMQuote.parse(files["quote"].read_bytes()),
        signature=TPMSignature(Scheme.RSASSA, Hash.SHA256, (files["sig"].read_bytes(),)),
        pcrs={pcr: bytes.fromhex(value) for pcr, value in enumerate(pcrs)},
    )
    return made, files, vector["expect"]


def real_snp(name: str, **changes: Any) -> AzureClaims:
    made, files, expect = real(name)
    return verify_azure_snp(
        replace(made, **changes),
        CertificateTable(vcek=files["vcek"].read_bytes()),
        nonce=bytes.fromhex(expect["extra_data"]),
        wanted=ALL,
        roots=PRODUCTION,
        now=REAL_NOW,
        issuers=issuers(f"{expect['product'].lower()}_ask_ark"),
    )


def real_td(name: str) -> tuple[AzureEvidence, TD, dict[str, Any]]:
    made, files, expect = real(name)
    quote = TDXQuote.parse(files["td_quote"].read_bytes(), trailing="any")
    return made, TD(quote.body, simulated=False), expect


@needs_vectors
@pytest.mark.parametrize("name", ["snp-milan-v2json", "snp-genoa"])
def test_real_snp_guests_verify(name: str) -> None:
    claims, expect = real_snp(name), VECTOR[name]["expect"]
    assert claims.snp is not None
    report, endorsement = claims.snp
    assert (claims.tee, claims.simulated, endorsement.product) == ("snp", False, expect["product"])
    assert report.measurement.hex() == expect["snp"]["measurement"]
    assert report.chip_id.hex() == expect["snp"]["chip_id"]
    assert claims.user_data == bytes.fromhex(expect["user_data"])
    check_configuration(claims, expect)


@needs_vectors
@pytest.mark.parametrize("name", ["tdx-v1json", "tdx-ak-chain"])
def test_real_tdx_guests_verify(name: str) -> None:
    made, td, expect = real_td(name)
    claims = verify_azure_tdx(made, td, nonce=bytes.fromhex(expect["extra_data"]), wanted=ALL)
    assert (claims.tee, claims.simulated, claims.snp) == ("tdx", False, None)
    assert td.body.mr_td.hex() == expect["td_quote_mrtd"]
    assert td.body.report_data.hex() == expect["report_data"]
    check_configuration(claims, expect)


def check_configuration(claims: AzureClaims, expect: dict[str, Any]) -> None:
    configuration = expect["vm_configuration"]
    assert claims.secure_boot is configuration["secure-boot"]
    assert claims.console_enabled is configuration["console-enabled"]
    assert claims.tpm_enabled is configuration["tpm-enabled"]
    assert claims.tpm_persisted is configuration.get("tpm-persisted")
    assert claims.vm_unique_id == configuration["vmUniqueId"]
    assert claims.root_cert_thumbprint == configuration.get("root-cert-thumbprint")
    assert claims.tpm.reset_count == expect["reset_count"]
    assert hex(claims.tpm.firmware_version) == expect["firmware_version"]


@needs_vectors
def test_the_real_report_with_another_key_in_it_is_refused() -> None:
    edited = HCLReport.parse((VECTORS / VECTOR["neg-hcl-ak-edited"]["files"]["hcl"]).read_bytes())
    with pytest.raises(VerifyError, match="report_data differs, want the hash of the variable data"):
        real_snp("snp-milan-v2json", hcl=edited)


@needs_vectors
def test_a_real_quote_of_another_guest_is_refused() -> None:
    genoa, _, _ = real("snp-genoa")
    with pytest.raises(VerifyError, match="hcl report: made by SNP, want TDX"):
        verify_azure_tdx(genoa, real_td("tdx-v1json")[1], nonce=b"challenge", wanted=ALL)
    made, td, _ = real_td("tdx-v1json")
    other, _, _ = real_td("tdx-ak-chain")
    with pytest.raises(VerifyError, match=r"differs from the td quote in .*mr_td.*report_data"):
        verify_azure_tdx(other, td, nonce=b"challenge", wanted=ALL)
    spliced = replace(made, hcl=other.hcl)
    with pytest.raises(VerifyError, match="signature is not the key's"):
        verify_azure_tdx(spliced, real_td("tdx-ak-chain")[1], nonce=b"challenge", wanted=ALL)


@needs_vectors
def test_an_old_paravisor_called_its_key_one_for_encryption() -> None:
    old = HCLReport.parse((VECTORS / "azure/kinvolk/hcl_report_snp.bin").read_bytes())
    with pytest.raises(VerifyError, match=r"HCLAkPub is for \['encrypt'\], want it to sign alone"):
        verify(replace(evidence(), hcl=old))


def test_a_simulated_guest_verifies_and_says_so() -> None:
    claims = verify(evidence())
    assert claims.simulated
    assert claims.tpm.pcrs == PCRS
    assert (claims.secure_boot, claims.console_enabled, claims.tpm_persisted) == (True, False, None)
    assert claims.user_data == bytes(64)
    assert claims.not_checked == ("revocation of the ask: no revocation list given",)
    made, body = td_evidence()
    assert verify_azure_tdx(made, TD(body), nonce=NONCE, wanted=WANTED).simulated


def test_secure_boot_is_off_unless_it_is_said_to_be_on() -> None:
    quiet = {"vm-configuration": {"tpm-enabled": True}}
    assert verify(evidence(runtime_data(TPM, **quiet))).secure_boot is False


def test_debug_is_told_and_not_judged() -> None:
    claims = verify(evidence(policy=POLICY | DEBUG))
    assert claims.snp is not None
    assert claims.snp[0].debug_allowed


@pytest.mark.guarantee("G7")
def test_a_quote_for_another_nonce_is_refused() -> None:
    with pytest.raises(VerifyError, match="extra_data differs"):
        verify(evidence(), nonce=NONCE[::-1])


def test_a_quote_over_other_pcrs_is_refused() -> None:
    with pytest.raises(VerifyError, match="pcrs are 0-4, 7, 11, want 0-4, 7"):
        verify(evidence(), wanted=WANTED - {11})
    sha384 = {pcr: value + bytes(16) for pcr, value in PCRS.items()}
    quote, signature = TPM.quote(pcrs=sha384, bank=Hash.SHA384)
    with pytest.raises(VerifyError, match="bank is sha384, want sha256"):
        verify(evidence(quote=quote, signature=signature, pcrs=sha384))


@pytest.mark.parametrize("vmpl", [1, 2, 3])
def test_a_report_the_guest_made_itself_is_refused(vmpl: int) -> None:
    with pytest.raises(VerifyError, match=f"vmpl is {vmpl}, want 0, the paravisor's"):
        verify(evidence(vmpl=vmpl))


def test_every_changed_bit_of_the_json_is_refused() -> None:
    made = evidence()
    data = made.hcl.variable_data
    for bit in range(0, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerifyError, match="report_data differs"):
            verify(replace(made, hcl=replace(made.hcl, variable_data=bytes(changed))))


def test_zeros_of_the_area_are_not_part_of_the_json() -> None:
    made = evidence()
    longer = replace(made.hcl, variable_data=made.hcl.variable_data + b"\0")
    with pytest.raises(VerifyError, match="report_data differs"):
        verify(replace(made, hcl=longer))


def test_another_hash_of_the_json_is_refused() -> None:
    made = evidence()
    with pytest.raises(VerifyError, match="report_data differs"):
        verify(replace(made, hcl=replace(made.hcl, hash_type=Hash.SHA384)))


def test_json_the_paravisor_would_not_write_is_refused_though_it_is_bound() -> None:
    with pytest.raises(FormatError, match="appears twice"):
        verify(evidence(b'{"keys":[],"keys":[]}'))
    with pytest.raises(VerifyError, match=r"keys are \[\], want HCLAkPub among them"):
        verify(evidence(runtime_data(TPM, keys=[])))


def test_a_key_that_does_more_than_sign_is_refused() -> None:
    key = json.loads(runtime_data(TPM))["keys"][0]
    for key_ops in ([], ["encrypt"], ["sign", "encrypt"]):
        with pytest.raises(VerifyError, match="want it to sign alone"):
            verify(evidence(runtime_data(TPM, keys=[key | {"key_ops": key_ops}])))


def test_an_endorsement_key_does_not_quote() -> None:
    key = json.loads(runtime_data(TPM))["keys"][0]
    with pytest.raises(VerifyError, match="want HCLAkPub among them"):
        verify(evidence(runtime_data(TPM, keys=[key | {"kid": "HCLEkPub"}])))


def test_hardware_that_is_not_genuine_is_refused() -> None:
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        verify_azure_snp(evidence(), TABLE, nonce=NONCE, wanted=WANTED, roots=PRODUCTION, now=NOW)


@pytest.mark.parametrize("name", ["mr_td", "td_attributes", "rtmr3", "mr_config_id", "xfam", "report_data"])
def test_a_td_quote_of_another_td_is_refused(name: str) -> None:
    made, body = td_evidence()
    value: Any = getattr(body, name)
    other: Any = value ^ (1 << 30) if isinstance(value, int) else value[:-1] + b"\x07"
    with pytest.raises(VerifyError, match=f"differs from the td quote in {name}$"):
        verify_azure_tdx(made, TD(replace(body, **{name: other})), nonce=NONCE, wanted=WANTED)


def test_json_that_a_td_s_report_does_not_carry_is_refused() -> None:
    made, body = td_evidence()
    changed = replace(made.hcl, variable_data=made.hcl.variable_data.replace(b"A-1", b"A-2"))
    with pytest.raises(VerifyError, match="report_data differs"):
        verify_azure_tdx(replace(made, hcl=changed), TD(body), nonce=NONCE, wanted=WANTED)
