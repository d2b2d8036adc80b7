"""Outlines of what a TPM signs, of boot event logs, and of Azure's report around a vTPM's key."""

from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.outline import Outline, snp_report
from strongroom.evidence.outline_tdx import td_report
from strongroom.evidence.tpm import Attributes, Curve, Hash, Scheme

_HASHES: Final = {int(bank): str(bank) for bank in Hash}
_SCHEMES: Final = {int(scheme): scheme.name for scheme in Scheme}
_ATTRIBUTES: Final = {str(flag.name).lower(): flag.bit_length() - 1 for flag in Attributes}
_EVENTS: Final = {
    0x1: "EV_POST_CODE",
    0x3: "EV_NO_ACTION",
    0x4: "EV_SEPARATOR",
    0x5: "EV_ACTION",
    0x6: "EV_EVENT_TAG",
    0x7: "EV_S_CRTM_CONTENTS",
    0x8: "EV_S_CRTM_VERSION",
    0xD: "EV_IPL",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
}
_SPEC: Final = b"Spec ID Event03\0"
_MOST_EVENTS: Final = 10_000


def attest(out: Outline) -> None:
    """TCG TPM 2.0 Library, Part 2, 10.12.8 (TPMS_ATTEST), of type quote."""
    out.take("magic", 4)
    out.number("type", 2, big=True, words={0x8018: "TPM_ST_ATTEST_QUOTE"})
    for name in ("qualifiedSigner", "extraData"):
        _sized(out, name)
    for name, size in (("clock", 8), ("resetCount", 4), ("restartCount", 4), ("safe", 1)):
        out.number(f"clockInfo.{name}", size, big=True)
    out.take("firmwareVersion", 8)
    for n in range(_few(out.number("pcrSelect.count", 4, big=True))):
        out.number(f"pcrSelect[{n}].hash", 2, big=True, words=_HASHES)
        size = out.number(f"pcrSelect[{n}].sizeofSelect", 1)
        out.bits(f"pcrSelect[{n}].pcrSelect", size, {str(pcr): pcr for pcr in range(8 * size)})
    _sized(out, "pcrDigest")
    out.rest("left over")


def signature(out: Outline) -> None:
    """TPMT_SIGNATURE."""
    scheme = out.number("sigAlg", 2, big=True, words=_SCHEMES)
    out.number("hash", 2, big=True, words=_HASHES)
    for name in ("signatureR", "signatureS") if scheme == Scheme.ECDSA else ("sig",):
        _sized(out, name)
    out.rest("left over")


def public(out: Outline) -> None:
    """TPMT_PUBLIC of a key that signs."""
    kind = out.number("type", 2, big=True, words={1: "RSA", 0x23: "ECC"})
    out.number("nameAlg", 2, big=True, words=_HASHES)
    out.bits("objectAttributes", 4, _ATTRIBUTES, big=True)
    _sized(out, "authPolicy")
    out.number("symmetric", 2, big=True, words={0x10: "none"})
    if out.number("scheme", 2, big=True, words=_SCHEMES | {0x10: "none"}) != 0x10:
        out.number("scheme.hash", 2, big=True, words=_HASHES)
    if kind == 1:
        out.number("keyBits", 2, big=True)
        out.number("exponent", 4, big=True, words={0: "65537"})
        _sized(out, "unique.rsa")
    else:
        out.number("curveID", 2, big=True, words={int(curve): curve.name for curve in Curve})
        out.number("kdf", 2, big=True, words={0x10: "none"})
        for name in ("unique.x", "unique.y"):
            _sized(out, name)
    out.rest("left over")


def event_log(out: Outline) -> None:
    """TCG PC Client Platform Firmware Profile, section 10; a CCEL counts registers where a TPM counts PCRs."""
    sizes: dict[int, int] = {}
    n = 0
    while out.remaining >= 32 and n < _MOST_EVENTS:
        before = len(out.fields)
        index = out.number(f"event[{n}].pcrIndex", 4)
        if index == 0xFFFFFFFF or (n and index == 0 and _is_padding(out)):
            del out.fields[before + 1 :]
            break
        out.number(f"event[{n}].eventType", 4, words=_EVENTS)
        if sizes:
            for m in range(_few(out.number(f"event[{n}].digestCount", 4))):
                hash_id = out.number(f"event[{n}].digest[{m}].hashAlg", 2, words=_HASHES)
                if hash_id not in sizes:
                    raise FormatError(
                        f"event log: digest of algorithm {hash_id:#x}, which its head does not name"
                    )
                out.take(f"event[{n}].digest[{m}]", sizes[hash_id])
        else:
            out.take(f"event[{n}].digest", 20)
        size = out.number(f"event[{n}].eventSize", 4)
        if n == 0 and size >= 28 and out.peek(16) == _SPEC:
            sizes = _head(out, size)
        elif size:
            out.text(f"event[{n}].event", size, "utf-16-le" if size % 2 == 0 else "utf-8")
        n += 1
    out.rest("padding")


def hcl(out: Outline) -> None:
    """Azure's HCL report: a header, a hardware report, and variable data whose hash the report carries."""
    out.text("Signature", 4)
    out.number("Version", 4)
    out.number("ReportSize", 4)
    out.number("RequestType", 4)
    out.number("Status", 4)
    out.reserved(12)
    hardware = out.take("HwReport", 1184)
    inner = Outline(hardware, "hardware report", base=out.fields.pop().offset)
    if hardware[:1] == b"\x81":
        td_report(inner)
    else:
        snp_report(inner)
    out.fields += inner.fields
    out.number("DataSize", 4)
    out.number("DataVersion", 4)
    out.number("ReportType", 4, words={2: "SNP", 4: "TDX"})
    out.number("ReportDataHashType", 4, words={1: "SHA-256", 2: "SHA-384", 3: "SHA-512"})
    out.text("VariableData", out.number("VariableDataSize", 4))
    out.rest("padding")


def _head(out: Outline, size: int) -> dict[int, int]:
    out.text("specId.signature", 16)
    out.number("specId.platformClass", 4)
    for name in ("specVersionMinor", "specVersionMajor", "specErrata", "uintnSize"):
        out.number(f"specId.{name}", 1)
    sizes: dict[int, int] = {}
    count = _few(out.number("specId.numberOfAlgorithms", 4))
    for n in range(count):
        hash_id = out.number(f"specId.algorithm[{n}].algorithmId", 2, words=_HASHES)
        sizes[hash_id] = out.number(f"specId.algorithm[{n}].digestSize", 2)
    vendor = out.number("specId.vendorInfoSize", 1)
    if 29 + 4 * count + vendor != size:
        raise FormatError(f"event log: its head is {29 + 4 * count + vendor} bytes, says {size}")
    if vendor:
        out.take("specId.vendorInfo", vendor)
    return sizes


def _is_padding(out: Outline) -> bool:
    return not any(out.peek(64))


def _sized(out: Outline, name: str) -> None:
    size = out.number(f"{name}.size", 2, big=True)
    if size:
        out.take(name, size)


def _few(count: int) -> int:
    if count > 64:
        raise FormatError(f"outline: {count} entries, want at most 64")
    return count
