"""What kind of evidence some bytes are, by how they begin. A guess: the parser of that kind has the last word."""

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Final
from uuid import UUID

from strongroom.errors import FormatError
from strongroom.evidence.snp import SIZE as SNP_SIZE
from strongroom.evidence.snp import VERSIONS as SNP_VERSIONS
from strongroom.evidence.tdx import QE_VENDOR_ID, REPORT_SIZE
from strongroom.evidence.tpm import PCR_COUNT, Hash, Scheme
from strongroom.wire.canonical import check_depth

MAX_BYTES: Final = 3 << 20  # kept evidence is the largest, with two bundles and their collateral
_VCEK: Final = UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes_le
_VLEK: Final = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes_le
_ASK: Final = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes_le
_ARK: Final = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes_le
_TABLE_STARTS: Final = {_VCEK, _VLEK, _ASK, _ARK}
_SPEC_ID: Final = b"Spec ID Event03\0"
_MAX_DEPTH: Final = 64  # of JSON; what is nested deeper is no evidence


class Kind(StrEnum):
    """Evidence, and what is needed to judge it."""

    BUNDLE = "evidence bundle"
    KEPT = "kept evidence"
    SNP = "snp report"
    SNP_KBS = "snp evidence of the kbs protocol"
    SNP_TABLE = "snp certificate table"
    TDX = "tdx quote"
    TDREPORT = "tdx report"
    TDX_COLLATERAL = "tdx collateral"
    HCL = "azure hcl report"
    TPM_QUOTE = "tpm quote"
    TPM_SIGNATURE = "tpm signature"
    TPM_NUMBER = "bare rsa signature"
    TPM_KEY = "tpm key"
    TPM_EVIDENCE = "tpm evidence"
    PCRS = "pcr values"
    EVENT_LOG = "event log"
    CC_LOG = "cc event log"
    GPU = "nvidia report"
    GPUS = "nvidia evidence"
    RIM = "rim"
    CERTIFICATES = "certificates"
    CRL = "revocation list"


def detect(data: bytes) -> Kind:
    """The kind of `data`, or FormatError when it begins like nothing we know."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"evidence: {len(data)} bytes, want at most {MAX_BYTES}")
    for kind, looks in _LOOKS:
        if looks(data):
            return kind
    start = data[:8].hex() or "nothing"
    raise FormatError(
        f"evidence: {len(data)} bytes that begin with {start}, which is no kind of evidence known"
    )


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _is_tdx(data: bytes) -> bool:
    return data[12:28] == QE_VENDOR_ID and _u16(data, 0) < 16


def _is_snp(data: bytes) -> bool:
    return _u32(data, 0) in SNP_VERSIONS and SNP_SIZE - 64 <= len(data) <= SNP_SIZE + 64


def _is_log(data: bytes) -> bool:
    if len(data) < 32 or _u32(data, 0) >= PCR_COUNT:
        return False
    if _u32(data, 4) == 3 and data[32:48] == _SPEC_ID:
        return not _is_cc_log(data)
    # Old logs begin with their first measurement, of a type the first profile had, in PCR 0.
    return _u32(data, 0) == 0 and 0 < _u32(data, 4) <= 0x12 and 0 < _u32(data, 28) <= len(data) - 32


def _is_cc_log(data: bytes) -> bool:
    """A log whose only digests are SHA-384, in an area of measurement registers."""
    if _u32(data, 4) != 3 or data[32:48] != _SPEC_ID:
        return False
    return _u32(data, 56) == 1 and _u16(data, 60) == Hash.SHA384


def _is_tpm_key(data: bytes) -> bool:
    return data[:2] in (b"\0\x01", b"\0\x23") and int.from_bytes(data[2:4], "big") in {*Hash}


def _is_tpm_signature(data: bytes) -> bool:
    scheme, digest = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    return len(data) >= 4 and scheme in {*Scheme} and digest in {*Hash}


def _der(tag: bytes) -> Callable[[bytes], bool]:
    # A certificate begins with a version, [0]; a revocation list with its version or algorithm.
    def looks(data: bytes) -> bool:
        at = 4 if data[:2] == b"\x30\x82" else 3 if data[:2] == b"\x30\x81" else 0
        inner = 4 if data[at : at + 2] == b"\x30\x82" else 3 if data[at : at + 2] == b"\x30\x81" else 2
        return at > 0 and data[at : at + 1] == b"\x30" and data[at + inner :].startswith(tag)

    return looks


def _pem(label: bytes) -> Callable[[bytes], bool]:
    def looks(data: bytes) -> bool:
        return data[:1] not in (b"{", b"[") and b"-----BEGIN " + label + b"-----" in data[:4096]

    return looks


def _json(*keys: str) -> Callable[[bytes], bool]:
    wanted = {*keys}

    def looks(data: bytes) -> bool:
        value = _parsed(data)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]
        return isinstance(value, dict) and wanted <= value.keys()

    return looks


def _is_version(version: str) -> Callable[[bytes], bool]:
    def looks(data: bytes) -> bool:
        value = _parsed(data)
        return isinstance(value, dict) and value.get("version") == version

    return looks


def _is_pcrs(data: bytes) -> bool:
    value = _parsed(data)
    if isinstance(value, dict):
        return bool(value) and all(key.isdecimal() and isinstance(v, str) for key, v in value.items())
    return isinstance(value, list) and 0 < len(value) <= PCR_COUNT and all(isinstance(v, str) for v in value)


def _parsed(data: bytes) -> object:
    if data[:1] not in (b"{", b"["):
        return None
    try:
        check_depth(data, "evidence", _MAX_DEPTH)
        return json.loads(data)
    except (ValueError, FormatError):
        return None


_LOOKS: Final[tuple[tuple[Kind, Callable[[bytes], bool]], ...]] = (
    (Kind.HCL, lambda data: data.startswith(b"HCLA")),
    (Kind.TDX, _is_tdx),
    (Kind.GPU, lambda data: data.startswith(b"\x11\xe0")),
    (Kind.TPM_QUOTE, lambda data: data.startswith(b"\xffTCG")),
    (Kind.TDREPORT, lambda data: data[:2] == b"\x81\0" and len(data) == REPORT_SIZE),
    (Kind.SNP_TABLE, lambda data: data[:16] in _TABLE_STARTS),
    (Kind.CC_LOG, _is_cc_log),
    (Kind.EVENT_LOG, _is_log),
    (Kind.SNP, _is_snp),
    (Kind.TPM_SIGNATURE, _is_tpm_signature),
    (Kind.TPM_KEY, _is_tpm_key),
    (Kind.CERTIFICATES, _pem(b"CERTIFICATE")),
    (Kind.CRL, _pem(b"X509 CRL")),
    (Kind.CERTIFICATES, _der(b"\xa0")),
    (Kind.CRL, _der(b"\x02\x01\x01")),
    (Kind.RIM, lambda data: data.lstrip()[:5] in (b"<?xml", b"<Soft") or data[:1] == b"<"),
    (Kind.BUNDLE, _is_version("strongroom/bundle/v1")),
    (Kind.BUNDLE, lambda data: data[:1] >= b"\xa0" and data[0] >> 5 == 5 and b"strongroom/bundle/v1" in data),
    (Kind.KEPT, _is_version("strongroom/kept-evidence/v1")),
    (Kind.SNP_KBS, _json("attestation_report")),
    (Kind.TDX_COLLATERAL, _json("tcb_info", "qe_identity")),
    (Kind.TPM_EVIDENCE, _json("ak_public", "tpm_quote")),
    (Kind.GPUS, _json("evidence", "certificate", "arch")),
    (Kind.PCRS, _is_pcrs),
    (Kind.TPM_NUMBER, lambda data: len(data) == 256 and data[:1] not in (b"{", b"[")),
)
