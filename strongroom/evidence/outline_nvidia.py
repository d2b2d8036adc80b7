"""Outline of an NVIDIA attestation report: an SPDM 1.1 GET_MEASUREMENTS request and its signed response."""

from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.outline import Outline

_OPAQUE: Final = {
    1: "CERT_ISSUER_NAME",
    2: "CERT_AUTHORITY_KEY_IDENTIFIER",
    3: "DRIVER_VERSION",
    4: "GPU_INFO",
    5: "SKU",
    6: "VBIOS_VERSION",
    7: "MANUFACTURER_ID",
    8: "TAMPER_DETECTION",
    9: "SMC",
    10: "VPR",
    11: "NVDEC0_STATUS",
    12: "MSRSCNT",
    13: "CPRINFO",
    14: "BOARD_ID",
    15: "CHIP_SKU",
    16: "CHIP_SKU_MOD",
    17: "PROJECT",
    18: "PROJECT_SKU",
    19: "PROJECT_SKU_MOD",
    20: "FWID",
    21: "PROTECTED_PCIE_STATUS",
    22: "SWITCH_PDI",
    23: "FLOORSWEPT_PORTS",
    24: "POSITION_ID",
    25: "LOCK_SWITCH_STATUS",
    32: "GPU_LINK_CONN",
    33: "SYS_ENABLE_STATUS",
    34: "OPAQUE_DATA_VERSION",
    35: "CHIP_INFO",
    36: "FEATURE_FLAG",
}
_TEXT: Final = {3, 5, 15, 16, 17, 18, 19, 35}
_SIGNATURE: Final = 96


def report(out: Outline) -> None:
    """DMTF DSP0274 1.1, GET_MEASUREMENTS and MEASUREMENTS."""
    for side in ("request", "response"):
        out.take(f"{side}.SPDMVersion", 1)
        out.take(f"{side}.RequestResponseCode", 1)
        out.take(f"{side}.Param1", 1)
        out.take(f"{side}.Param2", 1)
        if side == "request":
            out.take("request.Nonce", 32)
            out.number("request.SlotIDParam", 1)
    blocks = out.number("response.NumberOfBlocks", 1)
    length = out.number("response.MeasurementRecordLength", 3)
    end = out.remaining - length
    for n in range(1, blocks + 1):
        out.number(f"block[{n}].Index", 1)
        out.number(f"block[{n}].MeasurementSpecification", 1)
        out.number(f"block[{n}].MeasurementSize", 2)
        out.number(f"block[{n}].DMTFSpecMeasurementValueType", 1)
        out.take(f"block[{n}].value", out.number(f"block[{n}].DMTFSpecMeasurementValueSize", 2))
    if out.remaining != end:
        raise FormatError(f"spdm report: blocks end {abs(out.remaining - end)} bytes beside their record")
    out.take("response.Nonce", 32)
    end = out.remaining - 2 - out.number("response.OpaqueLength", 2)
    while out.remaining > end:
        kind = out.number("opaque.type", 2, words=_OPAQUE)
        size = out.number("opaque.size", 2)
        name = f"opaque.{_OPAQUE.get(kind, f'type {kind}')}"
        if kind in _TEXT:
            out.text(name, size)
        elif size:
            out.take(name, size)
    out.take("response.Signature (r, s)", _SIGNATURE)
    out.rest("left over")
