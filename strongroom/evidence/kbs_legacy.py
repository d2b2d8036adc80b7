"""The JSON faces that agents of CoCo releases up to 0.13 send: what a broker of those days reads.

    snp            the sev crate's report before cpuid and key bits had names: `_reserved_*`, flat firmware versions
    az-snp-vtpm    {"quote": {"signature", "message", "pcrs"}, "report", "vcek"}: lists of numbers, VCEK in PEM
    az-tdx-vtpm    {"tpm_quote": {...}, "hcl_report", "td_quote"}: lists of numbers

Only written, never read: our broker wants evidence of today.
"""

from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.kbs import KBSEvidence
from strongroom.evidence.kbs_json import to_json, vcek_of
from strongroom.evidence.snp import TCB, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import to_kbs
from strongroom.evidence.tpm import TPMSignature
from strongroom.wire.canonical import JSON
from strongroom.wire.pem import pem

_SIGNATURE: Final = 512  # bytes of the report's signature field, most of them unused
_NUMBERS: Final = 144  # of r and s


def to_legacy(evidence: KBSEvidence) -> JSON:
    """`tee-evidence` of an attestation before version 0.3.0; FormatError for a TEE unknown then."""
    match evidence.tee:
        case "snp":
            return _snp(evidence)
        case "tdx":
            return to_json(evidence)
        case "az-snp-vtpm":
            return {
                "quote": _quote(evidence),
                "report": list(evidence.report),
                "vcek": pem([vcek_of(evidence)]).decode(),
            }
        case "az-tdx-vtpm":
            return {
                "tpm_quote": _quote(evidence),
                "hcl_report": list(evidence.report),
                "td_quote": list(evidence.certificates),
            }
    raise FormatError(f"kbs evidence: tee {evidence.tee} is not known to this version of the protocol")


def _snp(evidence: KBSEvidence) -> JSON:
    report = SNPReport.parse(evidence.report)
    raw = evidence.report
    today = to_kbs(raw, CertificateTable.parse(evidence.certificates))
    fields = today["attestation_report"]
    if not isinstance(fields, dict):
        raise FormatError("snp evidence: not an object")
    kept = {name: fields[name] for name in _KEPT}
    tcbs: dict[str, JSON] = {
        "current_tcb": _tcb(report.current_tcb),
        "reported_tcb": _tcb(report.reported_tcb),
        "committed_tcb": _tcb(report.committed_tcb),
        "launch_tcb": _tcb(report.launch_tcb),
    }
    versions: dict[str, JSON] = {
        f"{which}_{part}": getattr(getattr(report, which), part)
        for which in ("current", "committed")
        for part in ("build", "minor", "major")
    }
    signature = raw[0x2A0:]
    old: dict[str, JSON] = {
        "_author_key_en": report.key_info,
        "_reserved_0": 0,
        "_reserved_1": list(raw[0x188:0x1A0]),
        "_reserved_2": 0,
        "_reserved_3": 0,
        "_reserved_4": list(raw[0x1F8:0x2A0]),
        "signature": {
            "r": list(signature[: _NUMBERS // 2]),
            "s": list(signature[_NUMBERS // 2 : _NUMBERS]),
            "_reserved": list(signature[_NUMBERS:_SIGNATURE]),
        },
    }
    return {"attestation_report": kept | tcbs | versions | old, "cert_chain": today["cert_chain"]}


_KEPT: Final = (
    "version guest_svn policy family_id image_id vmpl sig_algo plat_info report_data measurement host_data "
    "id_key_digest author_key_digest report_id report_id_ma chip_id"
).split()


def _tcb(tcb: TCB) -> JSON:
    return {
        "bootloader": tcb.bootloader,
        "tee": tcb.tee,
        "_reserved": [0] * 4,
        "snp": tcb.snp,
        "microcode": tcb.microcode,
    }


def _quote(evidence: KBSEvidence) -> JSON:
    if evidence.tpm is None:
        raise FormatError(f"{evidence.tee} evidence: no tpm quote, want one")
    (number,) = TPMSignature.parse(evidence.tpm.signature).numbers
    return {
        "signature": list(number),
        "message": list(evidence.tpm.attest),
        "pcrs": [list(value) for _, value in evidence.tpm.pcrs],
    }
