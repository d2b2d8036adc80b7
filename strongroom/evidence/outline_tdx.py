"""Outlines of Intel's structures: quotes of TDX (and SGX) and the 1024-byte report."""

from typing import Final

from strongroom.evidence.outline import Outline

_ATTRIBUTES: Final = {
    "DEBUG": 0,
    "SEPT_VE_DISABLE": 28,
    "MIGRATABLE": 29,
    "PKS": 30,
    "KL": 31,
    "PERFMON": 63,
}
_MEASURED: Final = ("MRTD", "MRCONFIGID", "MROWNER", "MROWNERCONFIG", "RTMR0", "RTMR1", "RTMR2", "RTMR3")
_CERTIFICATION: Final = {5: "PCK certificate chain, PEM", 6: "QE report certification data"}
_ENCLAVE: Final = (
    ("CPUSVN", 16),
    ("MISCSELECT", 4),
    ("reserved", 12),
    ("ISVEXTPRODID", 16),
    ("ATTRIBUTES", 16),
    ("MRENCLAVE", 32),
    ("reserved", 32),
    ("MRSIGNER", 32),
    ("reserved", 32),
    ("CONFIGID", 64),
    ("ISVPRODID", 2),
    ("ISVSVN", 2),
    ("CONFIGSVN", 2),
    ("reserved", 42),
    ("ISVFAMILYID", 16),
    ("REPORTDATA", 64),
)


def quote(out: Outline) -> None:
    """Intel, "TDX DCAP Quoting Library API", appendix A."""
    version = out.number("version", 2)
    out.number("attestation_key_type", 2, words={2: "ECDSA-256 with P-256", 3: "ECDSA-384 with P-384"})
    tee = out.number("tee_type", 4, words={0: "SGX", 0x81: "TDX"})
    out.take("qe_svn, pce_svn" if version == 3 else "reserved", 4)
    out.take("qe_vendor_id", 16)
    out.take("user_data", 20)
    kind = 1 if tee == 0 else 2
    if version >= 5:
        kind = out.number("body_type", 2, words={1: "SGX", 2: "TDX 1.0", 3: "TDX 1.5"})
        out.number("body_size", 4)
    if kind == 1:
        _enclave(out, "report_body")
    else:
        _body(out, has_more=kind == 3)
    out.number("signature_data_length", 4)
    out.take("quote_signature (r, s)", 64)
    out.take("attestation_key (x, y)", 64)
    if version >= 4:
        out.number("certification_data_type", 2, words=_CERTIFICATION)
        out.number("certification_data_size", 4)
    _enclave(out, "qe_report")
    out.take("qe_report_signature (r, s)", 64)
    out.take("qe_auth_data", out.number("qe_auth_data_size", 2))
    out.number("qe_certification_data_type", 2, words=_CERTIFICATION)
    size = out.number("qe_certification_data_size", 4)
    out.take("pck_certificate_chain", size, words=f"PEM, {size} bytes")
    out.rest("after the quote")


def td_report(out: Outline) -> None:
    """Intel, "TDX Module ABI", TDREPORT_STRUCT."""
    out.number("REPORTTYPE.TYPE", 1)
    out.number("REPORTTYPE.SUBTYPE", 1)
    out.number("REPORTTYPE.VERSION", 1)
    out.reserved(13)
    out.take("CPUSVN", 16)
    out.take("TEE_TCB_INFO_HASH", 48)
    out.take("TEE_INFO_HASH", 48)
    out.take("REPORTDATA", 64)
    out.reserved(32)
    out.take("MAC", 32)
    out.take("TEE_TCB_INFO.VALID", 8)
    out.take("TEE_TCB_INFO.TEE_TCB_SVN", 16)
    out.take("TEE_TCB_INFO.MRSEAM", 48)
    out.take("TEE_TCB_INFO.MRSIGNERSEAM", 48)
    out.take("TEE_TCB_INFO.ATTRIBUTES", 8)
    out.take("TEE_TCB_INFO.TEE_TCB_SVN2", 16)
    out.reserved(95)
    out.reserved(17)
    out.bits("TDINFO.ATTRIBUTES", 8, _ATTRIBUTES)
    out.take("TDINFO.XFAM", 8)
    for name in _MEASURED:
        out.take(f"TDINFO.{name}", 48)
    out.take("TDINFO.SERVTD_HASH", 48)
    out.reserved(64)
    out.rest("left over")


def _body(out: Outline, *, has_more: bool) -> None:
    out.take("TEE_TCB_SVN", 16)
    out.take("MRSEAM", 48)
    out.take("MRSIGNERSEAM", 48)
    out.take("SEAMATTRIBUTES", 8)
    out.bits("TDATTRIBUTES", 8, _ATTRIBUTES)
    out.take("XFAM", 8)
    for name in _MEASURED:
        out.take(name, 48)
    out.take("REPORTDATA", 64)
    if has_more:
        out.take("TEE_TCB_SVN_2", 16)
        out.take("MRSERVICETD", 48)


def _enclave(out: Outline, whose: str) -> None:
    for name, size in _ENCLAVE:
        out.take(f"{whose}.{name}", size)
