"""Is this an Azure confidential VM, and what did its vTPM measure? Hardware, then paravisor, then quote.

The hardware report was made by the paravisor at boot and vouches for the JSON beside it, which names the
attestation key of the vTPM. The guest never chooses that report's report_data, and an old one is as good as a
new one: the nonce of the vTPM quote is all the freshness there is.

Source: the layout in strongroom.evidence.hcl; Azure's paravisor is published as OpenHCL.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from strongroom.errors import VerifyError
from strongroom.evidence.hcl import AK_ID, HCLReport, ReportType, RuntimeData
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDReport, TDReportBody
from strongroom.evidence.tpm import Hash, TPMQuote, TPMSignature
from strongroom.verify.roots import Roots
from strongroom.verify.snp import Endorsement, verify_report
from strongroom.verify.tpm import TPMClaims, verify_quote

_PARAVISOR_VMPL: Final = 0
_QUOTED: Final = (  # of a TD report, and the same in every version of a quote
    "tee_tcb_svn mr_seam mrsigner_seam seam_attributes td_attributes xfam mr_td mr_config_id mr_owner "
    "mr_owner_config rtmr0 rtmr1 rtmr2 rtmr3 report_data"
).split()


class VerifiedTD(Protocol):
    """A TD quote that has verified: strongroom.verify.tdx makes them."""

    @property
    def body(self) -> TDReportBody: ...
    @property
    def simulated(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureEvidence:
    """What a guest on Azure hands over beside its certificates or its TD quote."""

    hcl: HCLReport
    quote: TPMQuote
    signature: TPMSignature
    pcrs: Mapping[int, bytes]  # SHA-256 bank


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureClaims:
    """Verified facts of an Azure guest. What the hardware says of itself is in `snp` or in the TD's claims."""

    tee: Literal["snp", "tdx"]
    simulated: bool  # the hardware was
    snp: tuple[SNPReport, Endorsement] | None  # None for TDX, where the caller has the TD's claims
    tpm: TPMClaims
    secure_boot: bool
    console_enabled: bool | None  # None: this firmware does not say
    tpm_enabled: bool | None
    tpm_persisted: bool | None
    vm_unique_id: str | None
    root_cert_thumbprint: str | None
    user_data: bytes | None  # 64 bytes the guest wrote; when it did so is not known
    not_checked: tuple[str, ...]


def verify_azure_snp(
    evidence: AzureEvidence,
    table: CertificateTable,
    *,
    nonce: bytes,
    wanted: frozenset[int],
    roots: Roots,
    now: datetime,
    crl: bytes | None = None,
    issuers: CertificateTable | None = None,
) -> AzureClaims:
    """The claims of an SNP guest whose vTPM quoted exactly the PCRs `wanted` for `nonce`, or VerifyError.

    `table`, `crl` and `issuers` are those of strongroom.verify.snp.verify_report.
    """
    _check_type(evidence.hcl, ReportType.SNP)
    report = SNPReport.parse(evidence.hcl.hardware_report)
    # From a lower privilege the guest itself picks report_data, and so could name any key.
    if report.vmpl != _PARAVISOR_VMPL:
        raise VerifyError(f"hcl report: vmpl is {report.vmpl}, want {_PARAVISOR_VMPL}, the paravisor's")
    runtime = _bound_runtime(evidence.hcl, report.report_data)
    tpm = _quoted(evidence, runtime, nonce, wanted)
    endorsement = verify_report(report, table, roots=roots, now=now, crl=crl, issuers=issuers)
    return _claims(runtime, tpm, endorsement.simulated, snp=(report, endorsement))


def verify_azure_tdx(
    evidence: AzureEvidence, td: VerifiedTD, *, nonce: bytes, wanted: frozenset[int]
) -> AzureClaims:
    """The claims of a TDX guest whose vTPM quoted exactly the PCRs `wanted` for `nonce`, or VerifyError.

    `td` is the verified quote into which the host turned the TDREPORT; both must say the same of the guest.
    """
    _check_type(evidence.hcl, ReportType.TDX)
    report = TDReport.parse(evidence.hcl.hardware_report)
    if differing := [name for name in _QUOTED if getattr(report.body, name) != getattr(td.body, name)]:
        raise VerifyError(f"hcl report: tdreport differs from the td quote in {', '.join(differing)}")
    runtime = _bound_runtime(evidence.hcl, td.body.report_data)
    return _claims(runtime, _quoted(evidence, runtime, nonce, wanted), td.simulated, snp=None)


def attestation_key(runtime: RuntimeData) -> RSAPublicKey:
    """The vTPM's attestation key; VerifyError when the JSON has none that is made for signing."""
    key = runtime.keys.get(AK_ID)
    if key is None:
        raise VerifyError(f"hcl json: keys are {sorted(runtime.keys)!a}, want {AK_ID} among them")
    if key.key_ops != ("sign",):
        raise VerifyError(f"hcl json: {AK_ID} is for {list(key.key_ops)!a}, want it to sign alone")
    try:
        return RSAPublicNumbers(key.exponent, int.from_bytes(key.modulus, "big")).public_key()
    except ValueError as error:
        raise VerifyError(f"hcl json: {AK_ID} is not a public key") from error


def _check_type(hcl: HCLReport, want: ReportType) -> None:
    if hcl.report_type is not want:
        raise VerifyError(f"hcl report: made by {hcl.report_type.name}, want {want.name}")


def _bound_runtime(hcl: HCLReport, report_data: bytes) -> RuntimeData:
    if report_data != hcl.report_data:
        raise VerifyError("hcl report: report_data differs, want the hash of the variable data and zeros")
    return RuntimeData.parse(hcl.variable_data)


def _quoted(evidence: AzureEvidence, runtime: RuntimeData, nonce: bytes, wanted: frozenset[int]) -> TPMClaims:
    return verify_quote(
        evidence.quote,
        evidence.signature,
        key=attestation_key(runtime),
        nonce=nonce,
        pcrs=evidence.pcrs,
        bank=Hash.SHA256,
        wanted=wanted,
    )


def _claims(
    runtime: RuntimeData, tpm: TPMClaims, simulated: bool, *, snp: tuple[SNPReport, Endorsement] | None
) -> AzureClaims:
    return AzureClaims(
        tee="tdx" if snp is None else "snp",
        simulated=simulated,
        snp=snp,
        tpm=tpm,
        secure_boot=runtime.flag("secure-boot") is True,
        console_enabled=runtime.flag("console-enabled"),
        tpm_enabled=runtime.flag("tpm-enabled"),
        tpm_persisted=runtime.flag("tpm-persisted"),
        vm_unique_id=runtime.text("vmUniqueId"),
        root_cert_thumbprint=runtime.text("root-cert-thumbprint"),
        user_data=runtime.user_data,
        # The paravisor makes the key itself, as a restricted one: the hardware report vouches for that.
        not_checked=() if snp is None else snp[1].not_checked,
    )
