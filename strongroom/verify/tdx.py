"""Is a TDX quote genuine, and how does the platform behind it stand today?

From Intel's pinned root to the PCK certificate, to the quoting enclave's report, to the attestation key, to the
quote; beside it Intel's signed word on that enclave, that platform and that TDX module. How they stand is told, not
judged; only a revoked one is refused. What the guest says of itself is not judged here either: a debug guest with a
good signature is genuine.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)

from strongroom.errors import VerifyError
from strongroom.evidence import pck
from strongroom.evidence.pck import PCKExtension
from strongroom.evidence.tdx import TDReportBody, TDXQuote
from strongroom.verify.qe_identity import QEIdentity
from strongroom.verify.roots import Roots
from strongroom.verify.tdx_chain import (
    Clock,
    Path,
    check_revocation,
    check_signature,
    pck_path,
    signed_object,
    signer_path,
)
from strongroom.verify.tdx_collateral import QE_IDENTITY, TCB_INFO, TDXCollateral
from strongroom.verify.tdx_tcb import Standing, TCBInfo, TCBStatus, worst

_PCK_EXTENSION: Final = x509.ObjectIdentifier(pck.OID)
_OUT_OF_DATE: Final = {TCBStatus.OUT_OF_DATE, TCBStatus.OUT_OF_DATE_CONFIGURATION_NEEDED}


@dataclass(frozen=True, slots=True, kw_only=True)
class TDXClaims:
    """Verified facts. Only `verify_quote` makes these outside of tests."""

    quote_version: int
    body: TDReportBody
    tcb_status: TCBStatus  # the worst of everything below; never REVOKED
    advisories: tuple[str, ...]  # of everything below, sorted
    tcb_date: datetime  # of the platform's level at launch
    platform: Standing
    qe: Standing
    module: Standing | None  # None for TDX 1.0, where the platform's level covers the module
    current_status: TCBStatus | None  # by TEE_TCB_SVN_2, after updates since launch; None without that field
    pck: PCKExtension  # holds what identifies the machine: do not log it in full
    evaluation_data_number: int  # the lower one of TCB info and QE identity
    valid_from: datetime  # all certificates, lists and documents used are good from here
    valid_until: datetime  # to here
    simulated: bool  # the root of the chain was a simulated platform's, not Intel's
    root_sha256: bytes
    not_checked: tuple[str, ...]

    @property
    def relaunch_advised(self) -> bool:
        """Whether the guest was launched on a patch level the machine has since left behind for a good one."""
        return self.current_status in {*TCBStatus} - _OUT_OF_DATE and self.tcb_status in _OUT_OF_DATE

    @property
    def fmspc(self) -> bytes:
        """Which family of platforms this is."""
        return self.pck.fmspc

    @property
    def pce_id(self) -> bytes:
        return self.pck.pce_id

    @property
    def report_data(self) -> bytes:
        return self.body.report_data


def verify_quote(quote: TDXQuote, collateral: TDXCollateral, *, roots: Roots, now: datetime) -> TDXClaims:
    """What `quote` proves, or VerifyError at the first step that does not hold.

    FormatError when collateral or the PCK certificate is not what its format demands.
    """
    clock = Clock(now)
    path = pck_path(quote.pck_chain.removesuffix(b"\0"), roots=roots, clock=clock)
    signers = _signers(collateral, path, roots, clock)
    _check_revocations(collateral, path, signers, clock)
    _check_signatures(quote, path)

    qe_identity = QEIdentity.parse(signed_object(collateral.qe_identity, QE_IDENTITY, signers[1]))
    clock.check_issue(qe_identity.issue_date, qe_identity.next_update, "qe identity")
    qe = qe_identity.standing(quote.qe_report)
    tcb_info = TCBInfo.parse(signed_object(collateral.tcb_info, TCB_INFO, signers[0]))
    clock.check_issue(tcb_info.issue_date, tcb_info.next_update, "tcb info")
    extension = _extension(path.leaf)
    platform = tcb_info.platform(extension, quote.body.tee_tcb_svn)
    module = tcb_info.module_standing(quote.body, quote.body.tee_tcb_svn)
    current = _current(tcb_info, extension, quote.body)

    standings = [standing for standing in (platform, qe, module, *current) if standing is not None]
    status = worst(*(standing.status for standing in standings))
    if status is TCBStatus.REVOKED:
        named = ", ".join(str(standing.status) for standing in standings)
        raise VerifyError(f"tcb info: platform, quoting enclave and module are {named}, want none revoked")
    return TDXClaims(
        quote_version=quote.version,
        body=quote.body,
        tcb_status=status,
        advisories=tuple(sorted({name for standing in standings for name in standing.advisories})),
        tcb_date=platform.tcb_date,
        platform=platform,
        qe=qe,
        module=module,
        current_status=worst(*(standing.status for standing in current)) if current else None,
        pck=extension,
        evaluation_data_number=min(tcb_info.evaluation_data_number, qe_identity.evaluation_data_number),
        valid_from=clock.valid_from,
        valid_until=clock.valid_until,
        simulated=path.root.simulated,
        root_sha256=path.root.sha256,
        not_checked=_not_checked(quote),
    )


def _current(tcb_info: TCBInfo, extension: PCKExtension, body: TDReportBody) -> tuple[Standing, ...]:
    """Standings by what runs now: the module can be updated under a guest, which keeps its level of launch."""
    if body.tee_tcb_svn2 is None:
        return ()
    platform = tcb_info.platform(extension, body.tee_tcb_svn2)
    module = tcb_info.module_standing(body, body.tee_tcb_svn2)
    return (platform,) if module is None else (platform, module)


def _signers(collateral: TDXCollateral, path: Path, roots: Roots, clock: Clock) -> tuple[Path, Path]:
    tcb_info = signer_path(collateral.tcb_info_chain, roots=roots, clock=clock)
    qe_identity = (
        tcb_info
        if collateral.qe_identity_chain == collateral.tcb_info_chain
        else signer_path(collateral.qe_identity_chain, roots=roots, clock=clock)
    )
    # Otherwise simulated collateral could speak for a genuine quote where both roots are believed.
    if {tcb_info.root.sha256, qe_identity.root.sha256} != {path.root.sha256}:
        raise VerifyError("tdx collateral: ends in another root than the quote, want the same")
    return tcb_info, qe_identity


def _check_revocations(
    collateral: TDXCollateral, path: Path, signers: tuple[Path, Path], clock: Clock
) -> None:
    under_root = (*path.issuers, *(signer.leaf for signer in signers))
    check_revocation(collateral.root_crl, path.root.certificate, under_root, clock)
    check_revocation(collateral.pck_crl, path.issuers[-1], (path.leaf,), clock)


def _check_signatures(quote: TDXQuote, path: Path) -> None:
    check_signature(
        quote.qe_report_signature, quote.qe_report.pack(), path.key, "qe report: signature is not the pck's"
    )
    bound = sha256(quote.attestation_key + quote.qe_auth_data).digest()
    if quote.qe_report.report_data != bound.ljust(64, b"\0"):
        raise VerifyError("qe report: report_data differs, want the hash of attestation key and auth data")
    check_signature(
        quote.signature,
        quote.signed_part,
        _attestation_key(quote.attestation_key),
        "tdx quote: signature is not the attestation key's",
    )


def _attestation_key(key: bytes) -> EllipticCurvePublicKey:
    x, y = int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big")
    try:
        return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except ValueError as error:
        raise VerifyError("tdx quote: attestation key is not a point on P-256") from error


def _extension(leaf: x509.Certificate) -> PCKExtension:
    try:
        value = leaf.extensions.get_extension_for_oid(_PCK_EXTENSION).value
    except x509.ExtensionNotFound as error:
        raise VerifyError(f"pck: no sgx extension ({pck.OID}), want one") from error
    if not isinstance(value, x509.UnrecognizedExtension):
        raise VerifyError(f"pck: sgx extension ({pck.OID}) is something else")
    return PCKExtension.parse(value.value)


def _not_checked(quote: TDXQuote) -> tuple[str, ...]:
    if any(quote.trailing):
        return (f"{len(quote.trailing)} bytes after the quote, which nothing signs",)
    return ()
