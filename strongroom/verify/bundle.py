"""Does this evidence speak for this purpose, challenge and key, on genuine silicon?

report_data is recomputed from what the verifier itself expects. What the bundle says of its own purpose and
challenge must agree, and is otherwise never used. GPUs are bound in both directions: their nonce commits to
challenge and key, report_data to their exact evidence. A TPM's quote commits to report_data, and its PCR 15 is what
the event log makes of it: a log that was written anew since would say something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from strongroom.errors import VerifyError
from strongroom.evidence.binding import (
    Purpose,
    gpu_digest,
    gpu_nonce,
    report_data,
    tpm_nonce,
)
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import AMD_CRL, Collateral
from strongroom.evidence.eventlog import PCR, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import Hash, TPMPublic, TPMQuote, TPMSignature
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.verify.amd_chain import is_out_of_date
from strongroom.verify.azure import AzureEvidence, verify_azure_snp, verify_azure_tdx
from strongroom.verify.claims import Claims
from strongroom.verify.devices import verify_devices
from strongroom.verify.lacking import LackingError
from strongroom.verify.nvml import said_of_gpus
from strongroom.verify.roots import Anchor, Roots
from strongroom.verify.snp import Endorsement, verify_report
from strongroom.verify.tdx import TDXClaims, verify_quote
from strongroom.verify.tdx_collateral import TDXCollateral
from strongroom.verify.tpm import TPMClaims
from strongroom.verify.tpm import verify_quote as verify_tpm_quote
from strongroom.verify.tpm_chain import split_der, verify_ak_chain

_ZERO: Final = bytes(48)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verifier:
    """What this verifier brings along."""

    roots: Roots
    now: datetime
    collateral: Collateral
    issuers: CertificateTable | None

    @property
    def crl(self) -> bytes | None:
        return self.collateral.find(AMD_CRL)

    @classmethod
    def of(cls, carried: Collateral, own: Collateral, **rest: Any) -> "_Verifier":
        crl = carried.find(AMD_CRL)
        if crl is not None and is_out_of_date(crl, rest["now"]):
            # No better than none, which is no reason to refuse: evidence that is kept would not outlive its list.
            carried = Collateral.of({name: data for name, data in carried if name != AMD_CRL})
        return cls(collateral=own.over(carried), **rest)


def verify_bundle(
    bundle: Bundle,
    *,
    purpose: Purpose,
    challenge: bytes,
    key: bytes,
    roots: Roots,
    now: datetime,
    issuers: CertificateTable | None = None,
    collateral: Collateral | None = None,
) -> Claims:
    """The claims of a bundle made for exactly this purpose, challenge and key (DER SubjectPublicKeyInfo).

    `collateral` and `issuers` (of an SNP report) are the caller's own and win over what the bundle carries. Raises
    VerifyError; LackingError where the reason is that neither has what it takes, or that it is out of date.
    """
    if bundle.purpose != purpose:
        raise VerifyError(f"evidence bundle: made for {bundle.purpose}, want {purpose}")
    if bundle.challenge != challenge:
        raise VerifyError("evidence bundle: made for another challenge")
    expected = report_data(
        purpose=purpose,
        challenge=challenge,
        key=key,
        gpu_digest=gpu_digest(bundle.gpus),
        context=bundle.events.head,
    )
    own = collateral or Collateral()
    verifier = _Verifier.of(bundle.collateral, own, roots=roots, now=now, issuers=issuers)
    claims = _machine(bundle, expected, verifier)
    return with_devices(
        claims,
        bundle.gpus,
        bundle.events,
        nonce=gpu_nonce(challenge, key),
        collateral=verifier.collateral,
        roots=roots,
        now=now,
    )


def _machine(bundle: Bundle, expected: bytes, verifier: _Verifier) -> Claims:
    if bundle.tee == "azure-snp":
        return _azure_snp(bundle, expected, verifier)
    if bundle.tee == "azure-tdx":
        return _azure_tdx(bundle, expected, verifier)
    claims = (_snp if bundle.tee == "snp" else _tdx)(bundle, expected, verifier)
    return claims if bundle.tpm is None else _with_tpm(claims, bundle.tpm, tpm_nonce(expected), verifier)


def _snp(bundle: Bundle, expected: bytes, verifier: _Verifier) -> Claims:
    report = SNPReport.parse(bundle.report)
    if report.report_data != expected:
        raise VerifyError("snp report: report_data differs, want this purpose, challenge, key and event log")
    table = CertificateTable.parse(bundle.certificates)
    endorsement = verify_report(
        report, table, roots=verifier.roots, now=verifier.now, crl=verifier.crl, issuers=verifier.issuers
    )
    return snp_claims(report, endorsement, bundle.events)


def _tdx(bundle: Bundle, expected: bytes, verifier: _Verifier) -> Claims:
    if bundle.certificates:
        raise VerifyError(
            f"tdx bundle: {len(bundle.certificates)} bytes of certificates, want none beside a quote"
        )
    quote = TDXQuote.parse(bundle.report, trailing="none")
    if quote.body.report_data != expected:
        raise VerifyError("tdx quote: report_data differs, want this purpose, challenge, key and event log")
    return tdx_claims(_td(quote, verifier), bundle.events)


def _td(quote: TDXQuote, verifier: _Verifier) -> TDXClaims:
    collateral = tdx_collateral(verifier.collateral)
    return verify_quote(quote, collateral, roots=verifier.roots, now=verifier.now)


def tdx_collateral(collateral: Collateral) -> TDXCollateral:
    """What a TDX quote is verified with; VerifyError naming what is missing. A missing part is never optional."""
    names = {name: f"intel-{name.replace('_', '-')}" for name in TDXCollateral.__dataclass_fields__}
    parts = {field: collateral.find(name) for field, name in names.items()}
    found = {field: data for field, data in parts.items() if data is not None}
    if missing := [names[field] for field in parts if field not in found]:
        raise LackingError(f"tdx collateral: neither evidence nor verifier has {', '.join(missing)}")
    return TDXCollateral(**found)


def _azure_snp(bundle: Bundle, expected: bytes, verifier: _Verifier) -> Claims:
    tpm = _required_tpm(bundle)
    azure = verify_azure_snp(
        _azure_evidence(bundle, tpm),
        CertificateTable.parse(bundle.certificates),
        nonce=tpm_nonce(expected),
        wanted=tpm.indices,
        roots=verifier.roots,
        now=verifier.now,
        crl=verifier.crl,
        issuers=verifier.issuers,
    )
    if azure.snp is None:
        raise VerifyError("hcl report: holds no snp report, want one")
    claims = replace(snp_claims(*azure.snp, bundle.events), azure=azure)
    return _with_certified_key(_add_tpm(claims, azure.tpm), azure.tpm, tpm, Anchor.AZURE_VTPM, verifier)


def _azure_tdx(bundle: Bundle, expected: bytes, verifier: _Verifier) -> Claims:
    tpm = _required_tpm(bundle)
    td = _td(TDXQuote.parse(bundle.certificates, trailing="none"), verifier)
    evidence, nonce = _azure_evidence(bundle, tpm), tpm_nonce(expected)
    azure = verify_azure_tdx(evidence, td, nonce=nonce, wanted=tpm.indices)
    claims = replace(tdx_claims(td, bundle.events), azure=azure)
    return _with_certified_key(_add_tpm(claims, azure.tpm), azure.tpm, tpm, Anchor.AZURE_VTPM, verifier)


def _required_tpm(bundle: Bundle) -> TPMEvidence:
    if bundle.tpm is None:
        raise VerifyError("azure bundle: no tpm quote, want one: nothing else here is fresh")
    return bundle.tpm


def _azure_evidence(bundle: Bundle, tpm: TPMEvidence) -> AzureEvidence:
    if tpm.public:
        raise VerifyError("azure bundle: a tpm key of its own, want the one that the hcl report names")
    return AzureEvidence(
        hcl=HCLReport.parse(bundle.report),
        quote=TPMQuote.parse(tpm.attest),
        signature=TPMSignature.parse(tpm.signature),
        pcrs=tpm.values,
    )


def _with_tpm(claims: Claims, tpm: TPMEvidence, nonce: bytes, verifier: _Verifier) -> Claims:
    """A quote whose key is certified by a cloud: without a certificate anyone's software could be that TPM."""
    if not tpm.certificates:
        raise VerifyError("tpm quote: its key has no certificate, want one of a cloud's authority")
    public = TPMPublic.parse(tpm.public)
    quoted = verify_tpm_quote(
        TPMQuote.parse(tpm.attest),
        TPMSignature.parse(tpm.signature),
        key=public,
        nonce=nonce,
        pcrs=tpm.values,
        bank=Hash.SHA256,
        wanted=tpm.indices,
    )
    known = _add_tpm(claims, quoted)
    gap = "that the tpm is this machine's: its certificate names a cloud alone"
    known = replace(known, not_checked=(*known.not_checked, gap))
    return _with_certified_key(known, quoted, tpm, Anchor.GCP_VTPM, verifier)


def _add_tpm(claims: Claims, tpm: TPMClaims) -> Claims:
    check_followed(tpm, claims.events or EventLog())
    return replace(claims, tpm=tpm, not_checked=(*claims.not_checked, *tpm.not_checked))


def check_followed(tpm: TPMClaims, events: EventLog) -> None:
    """VerifyError unless the register that follows the event log is what this log makes of it."""
    if PCR not in tpm.pcrs:
        raise VerifyError(f"tpm quote: without pcr {PCR}, want it: that one follows the event log")
    if tpm.pcrs[PCR] != events.pcr:
        raise VerifyError(
            f"tpm quote: pcr {PCR} is {tpm.pcrs[PCR].hex()}, the event log makes it {events.pcr.hex()}"
        )


def _with_certified_key(
    claims: Claims, quoted: TPMClaims, tpm: TPMEvidence, anchor: Anchor, verifier: _Verifier
) -> Claims:
    if not tpm.certificates:
        return claims
    certified = verify_ak_chain(
        split_der(tpm.certificates), anchor=anchor, roots=verifier.roots, now=verifier.now
    )
    if certified.key_sha256 != quoted.key_sha256:
        raise VerifyError("tpm quote: signed by another key than the certified one")
    gaps = (*claims.not_checked, *certified.not_checked)
    return _simulated(
        replace(claims, not_checked=gaps), {certified.root_sha256} if certified.simulated else set()
    )


def with_devices(
    claims: Claims,
    gpus: Sequence[GPUEvidence],
    events: EventLog,
    *,
    nonce: bytes,
    collateral: Collateral,
    roots: Roots,
    now: datetime,
) -> Claims:
    """These claims and those of the devices beside the CPU, all asked with `nonce`; VerifyError for one that fails."""
    if not gpus:
        return claims
    devices = verify_devices(gpus, nonce=nonce, collateral=collateral, roots=roots, now=now)
    counted = replace(
        claims,
        gpus=len(devices.devices.gpus),
        devices=devices,
        gpu_state=said_of_gpus(events, devices.devices),
        not_checked=(*claims.not_checked, *devices.not_checked),
    )
    return _simulated(counted, devices.roots)


def _simulated(claims: Claims, roots: set[bytes] | frozenset[bytes]) -> Claims:
    return replace(
        claims, simulated=claims.simulated or bool(roots), simulated_roots=claims.simulated_roots | roots
    )


def snp_claims(report: SNPReport, endorsement: Endorsement, events: EventLog | None) -> Claims:
    return Claims(
        tee="snp",
        product=endorsement.product,
        simulated=endorsement.simulated,
        root_sha256=endorsement.root_sha256,
        leaf=endorsement.leaf,
        csp_id=endorsement.csp_id,
        measurement=report.measurement,
        host_data=report.host_data,
        debug=report.debug_allowed,
        migration=report.migration_allowed or report.report_id_ma != b"\xff" * 32,
        smt=report.smt_allowed,
        vmpl=report.vmpl,
        reported_tcb=report.reported_tcb,
        committed_tcb=report.committed_tcb,
        chip_id=report.chip_id,
        report_id=report.report_id,
        report_version=report.version,
        platform_info=report.platform_info,
        events=events,
        gpus=0,
        not_checked=endorsement.not_checked,
        simulated_roots=frozenset({endorsement.root_sha256} if endorsement.simulated else ()),
    )


def tdx_claims(td: TDXClaims, events: EventLog | None) -> Claims:
    body = td.body
    return Claims(
        tee="tdx",
        product="TDX",
        simulated=td.simulated,
        root_sha256=td.root_sha256,
        leaf="pck",
        csp_id=None,
        measurement=body.mr_td,
        host_data=body.mr_config_id,
        debug=body.debug,
        migration=body.migratable or body.mr_service_td not in (None, _ZERO),
        smt=None,
        vmpl=None,
        reported_tcb=None,
        committed_tcb=None,
        chip_id=b"",
        report_version=td.quote_version,
        platform_info=None,
        events=events,
        gpus=0,
        not_checked=td.not_checked,
        simulated_roots=frozenset({td.root_sha256} if td.simulated else ()),
        tdx=td,
    )
