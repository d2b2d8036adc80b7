"""Does this evidence speak for this purpose, challenge and key, on genuine silicon?

report_data is recomputed from what the verifier itself expects. What the bundle says of its own purpose and
challenge must agree, and is otherwise never used.
"""

from datetime import datetime

from strongroom.errors import VerifyError
from strongroom.evidence.binding import Purpose, gpu_digest, kbs_report_data, report_data
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.verify.snp import Endorsement, verify_report


def verify_bundle(
    bundle: Bundle,
    *,
    purpose: Purpose,
    challenge: bytes,
    key: bytes,
    roots: Roots,
    now: datetime,
    crl: bytes | None = None,
    issuers: CertificateTable | None = None,
) -> Claims:
    """The claims of a bundle made for exactly this purpose, challenge and key (DER SubjectPublicKeyInfo)."""
    if bundle.gpus:
        raise VerifyError(
            f"gpu evidence: {len(bundle.gpus)} devices, which this version cannot verify, want none"
        )
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
    report = SNPReport.parse(bundle.report)
    if report.report_data != expected:
        raise VerifyError("snp report: report_data differs, want this purpose, challenge, key and event log")
    table = CertificateTable.parse(bundle.certificates)
    endorsement = verify_report(report, table, roots=roots, now=now, crl=crl, issuers=issuers)
    return _claims(report, endorsement, bundle.events)


def verify_kbs(
    report: SNPReport,
    table: CertificateTable,
    *,
    digest: bytes,
    roots: Roots,
    now: datetime,
    crl: bytes | None = None,
    issuers: CertificateTable | None = None,
) -> Claims:
    """The claims of a report made for KBS runtime data with this SHA-384 digest. They carry no event log."""
    if report.report_data != kbs_report_data(digest):
        raise VerifyError("snp report: report_data differs, want the digest of this exchange")
    endorsement = verify_report(report, table, roots=roots, now=now, crl=crl, issuers=issuers)
    return _claims(report, endorsement, None)


def _claims(report: SNPReport, endorsement: Endorsement, events: EventLog | None) -> Claims:
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
        report_version=report.version,
        platform_info=report.platform_info,
        events=events,
        gpus=0,
        not_checked=endorsement.not_checked,
    )
