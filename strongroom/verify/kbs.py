"""Does this evidence belong to this session of a key broker, on genuine silicon?

The CPU's evidence, or the TPM's quote, has to carry the digest; every GPU and switch the nonce cut from the device
digest; the hardware that of the init-data, where the guest says it has some. An event log beside it is bound by the
digest, and has to be what the registers that follow it hold.
"""

from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import kbs_report_data
from strongroom.evidence.collateral import AMD_CRL, Collateral
from strongroom.evidence.eventlog import PCR, EventLog
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.initdata import PCR as INIT_DATA_PCR
from strongroom.evidence.initdata import fitted, register
from strongroom.evidence.kbs import DEVICE_NONCE, TPM_NONCE, CompositeEvidence, Digests, KBSEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDReportBody, TDXQuote
from strongroom.evidence.tpm import Hash, TPMQuote, TPMSignature
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.verify.azure import AzureClaims, AzureEvidence, verify_azure_snp, verify_azure_tdx
from strongroom.verify.bundle import check_followed, snp_claims, tdx_claims, tdx_collateral, with_devices
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.verify.snp import verify_report
from strongroom.verify.tcglog import confirmed
from strongroom.verify.tdx import TDXClaims, verify_quote
from strongroom.verify.tpm import SigningKey, TPMClaims
from strongroom.verify.tpm import verify_quote as verify_tpm_quote

_USER_DATA: Final = 64  # bytes of the slot in an HCL report


def verify_kbs(
    evidence: CompositeEvidence,
    digests: Digests,
    *,
    roots: Roots,
    now: datetime,
    collateral: Collateral | None = None,
    issuers: CertificateTable | None = None,
) -> Claims:
    """The claims of evidence made for one session, or VerifyError; LackingError where collateral is what lacks.

    `collateral` and `issuers` are the verifier's own: this protocol carries none, but the chain of an SNP chip.
    Evidence of a TPM alone is genuine only by its key, which has to be among `roots.tpm_keys`.
    """
    session = _Session(digests, roots, now, collateral or Collateral(), issuers)
    claims = session.claims(evidence.primary)
    claims = replace(claims, events=evidence.events)
    if claims.tpm is not None and evidence.events is not None:
        check_followed(claims.tpm, evidence.events)
    return with_devices(
        claims,
        evidence.gpus,
        evidence.events or EventLog(),
        nonce=digests.device[:DEVICE_NONCE],
        collateral=session.collateral,
        roots=roots,
        now=now,
    )


class _Session:
    """What one session wants, and what its verifier brings along."""

    def __init__(
        self,
        digests: Digests,
        roots: Roots,
        now: datetime,
        collateral: Collateral,
        issuers: CertificateTable | None,
    ) -> None:
        self.digest, self.init_data = digests.primary, digests.init_data
        self.report_data = kbs_report_data(digests.primary, digests.hash)
        self.roots, self.now = roots, now
        self.collateral, self.issuers = collateral, issuers

    def claims(self, evidence: KBSEvidence) -> Claims:
        match evidence.tee:
            case "snp":
                return self._snp(evidence)
            case "tdx":
                return self._tdx(evidence)
            case "tpm":
                return self._tpm(evidence)
        return self._azure(evidence)

    def _snp(self, evidence: KBSEvidence) -> Claims:
        report = SNPReport.parse(evidence.report)
        if report.report_data != self.report_data:
            raise VerifyError("snp report: report_data differs, want the digest of this exchange")
        if self.init_data is not None:
            _check_bound("snp report: host_data", report.host_data, fitted(self.init_data, 32))
        table = CertificateTable.parse(evidence.certificates)
        endorsement = verify_report(
            report, table, roots=self.roots, now=self.now, crl=self._crl, issuers=self.issuers
        )
        return snp_claims(report, endorsement, None)

    def _tdx(self, evidence: KBSEvidence) -> Claims:
        quote = TDXQuote.parse(evidence.report)
        if quote.body.report_data != self.report_data:
            raise VerifyError("tdx quote: report_data differs, want the digest of this exchange")
        if self.init_data is not None:
            _check_bound("tdx quote: mr_config_id", quote.body.mr_config_id, fitted(self.init_data, 48))
        if evidence.log:
            _check_log(evidence.log, quote.body)
        return tdx_claims(self._td(quote), None)

    def _azure(self, evidence: KBSEvidence) -> Claims:
        quoted = _required(evidence.tpm)
        azure_evidence = AzureEvidence(
            hcl=HCLReport.parse(evidence.report),
            quote=TPMQuote.parse(quoted.attest),
            signature=TPMSignature.parse(quoted.signature),
            pcrs=quoted.values,
        )
        if evidence.tee == "az-tdx-vtpm":
            td = self._td(TDXQuote.parse(evidence.certificates))
            azure = verify_azure_tdx(azure_evidence, td, nonce=self.digest, wanted=quoted.indices)
            claims = tdx_claims(td, None)
        else:
            azure = verify_azure_snp(
                azure_evidence,
                CertificateTable.parse(evidence.certificates),
                nonce=self.digest,
                wanted=quoted.indices,
                roots=self.roots,
                now=self.now,
                crl=self._crl,
                issuers=self.issuers,
            )
            if azure.snp is None:
                raise VerifyError("hcl report: holds no snp report, want one")
            claims = snp_claims(*azure.snp, None)
        if evidence.binds_user_data:
            _check_user_data(azure, self.digest)
        self._check_register(azure.tpm)
        gaps = (*claims.not_checked, *azure.tpm.not_checked)
        return replace(claims, azure=azure, tpm=azure.tpm, not_checked=gaps)

    def _tpm(self, evidence: KBSEvidence) -> Claims:
        key, quoted = _signing_key(evidence.key), _required(evidence.tpm)
        if (name := sha256(evidence.key).digest()) not in self.roots.tpm_keys:
            raise VerifyError(f"tpm key: sha256 is {name.hex()}, want one that a policy names")
        quote = TPMQuote.parse(quoted.attest)
        # Agents differ in how much of the digest a TPM is asked to sign; none signs less than its first half.
        fits = {self.digest[:TPM_NONCE], self.digest, self.report_data}
        if quote.extra_data not in fits:
            raise VerifyError("tpm quote: extra_data differs, want the digest of this exchange")
        tpm = verify_tpm_quote(
            quote,
            TPMSignature.parse(quoted.signature),
            key=key,
            nonce=quote.extra_data,
            pcrs=quoted.values,
            bank=Hash.SHA256,
            wanted=quoted.indices,
        )
        self._check_register(tpm)
        return tpm_claims(tpm)

    @property
    def _crl(self) -> bytes | None:
        return self.collateral.find(AMD_CRL)

    def _td(self, quote: TDXQuote) -> TDXClaims:
        return verify_quote(quote, tdx_collateral(self.collateral), roots=self.roots, now=self.now)

    def _check_register(self, tpm: TPMClaims) -> None:
        if self.init_data is not None:
            found = tpm.pcrs[INIT_DATA_PCR]
            _check_bound(f"tpm quote: pcr {INIT_DATA_PCR}", found, register(self.init_data))


def tpm_claims(tpm: TPMClaims) -> Claims:
    """The claims of a quote whose key is believed by name: no hardware vouches for the machine."""
    return Claims(
        tee="tpm",
        product="TPM",
        simulated=False,
        root_sha256=tpm.key_sha256,
        leaf="ak",
        csp_id=None,
        measurement=b"",
        host_data=b"",
        debug=False,
        migration=False,
        smt=None,
        vmpl=None,
        reported_tcb=None,
        committed_tcb=None,
        chip_id=b"",
        report_version=0,
        platform_info=None,
        events=None,
        gpus=0,
        not_checked=(*tpm.not_checked, f"that pcr {PCR} follows an event log, where none came with it"),
        tpm=tpm,
    )


def _required(quoted: TPMEvidence | None) -> TPMEvidence:
    if quoted is None:
        raise VerifyError("kbs evidence: no tpm quote, want one: nothing else here is fresh")
    return quoted


def _signing_key(spki: bytes) -> SigningKey:
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("tpm evidence: ak_public is not a public key") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise FormatError("tpm evidence: ak_public is neither RSA nor EC")
    return key


def _check_bound(what: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise VerifyError(f"{what} is {found.hex()}, want {wanted.hex()}, the digest of the init-data")


def _check_user_data(azure: AzureClaims, digest: bytes) -> None:
    if azure.user_data != digest.ljust(_USER_DATA, b"\0"):
        raise VerifyError("hcl report: user-data differs, want the digest of this exchange")


def _check_log(log: bytes, body: TDReportBody) -> None:
    """Every register that the log extends is what it makes of it; one it does not mention stays unexplained."""
    parsed = TCGLog.parse(log, LogKind.CC)
    extended = {record.register for record in parsed.records if record.is_extended}
    registers = {index: body.rtmrs[index - 1] for index in sorted(extended)}
    if registers:
        confirmed(parsed, registers, Hash.SHA384)
