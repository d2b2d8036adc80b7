"""Mirrors strongroom/evidence/spdm.py. Real reports are read from the vectors beside the checkout."""

from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.spdm import MAX_BYTES, Measurement, Opaque, OpaqueField, SPDMReport
from tests.fakes.nvidia import content, nvidia, vectors

REAL: Final = vectors("nvidia-report")
NONCE: Final = bytes(range(32))
GPU: Final = nvidia().device()
REPORT: Final = GPU.report(NONCE)
GOOD: Final = REPORT.pack()


def with_opaque(type: int, value: bytes | None) -> SPDMReport:
    kept = tuple(field for field in REPORT.opaque if field.type != type)
    return replace(REPORT, opaque=kept if value is None else (*kept, OpaqueField(type, value)))


@pytest.mark.skipif(not REAL, reason="no real vectors beside this checkout")
def test_all_real_reports_were_found() -> None:
    assert len(REAL) >= 6


def le(value: int | None, size: int) -> str:
    return "" if value is None else value.to_bytes(size, "little").hex()


def status(value: bool | None) -> str:
    return "" if value is None else "aa" if value else "55"


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_a_real_report_gives_the_listed_fields_and_its_own_bytes(vector: dict[str, Any]) -> None:
    data, expect = content(vector, "report"), vector["expect"]
    report = SPDMReport.parse(data, trailing="zeros")
    surplus = expect["trailing_bytes_after_signature"]
    assert report.pack() == data[: len(data) - surplus]
    if surplus:
        with pytest.raises(FormatError, match=f"{surplus} bytes left over"):
            SPDMReport.parse(data)
    assert report.nonce.hex() == expect["request"]["nonce"]
    assert report.slot == expect["request"]["slot"]
    assert report.responder_nonce.hex() == expect["response"]["nonce"]
    assert len(report.measurements) == expect["response"]["blocks"]
    assert [field.type for field in report.opaque] == expect["response"]["opaque_types"]
    found = {
        "driver_version": report.driver_version or "",
        "vbios_version": report.vbios_version,
        "project": report.project or "",
        "project_sku": report.project_sku or "",
        "chip_sku": report.chip_sku or "",
        "board_id": le(report.board_id, 4),
        "nvdec0_status": status(report.nvdec0_enabled),
        "protected_pcie_status": status(report.protected_pcie),
        "opaque_data_version": le(report.opaque_data_version, 2),
        "feature_flag": le(report.feature_flag, 2),
        "report_fwid": (report.fwid or b"").hex(),
        "switch_pdis": [pdi.hex() for pdi in report.switch_pdis],
    }
    assert found == {name: expect.get(name, []) for name in found}


def test_a_switch_names_its_gpus_before_its_ports() -> None:
    gpus = b"".join(bytes([n] * 8) for n in range(1, 8)) + bytes(8)
    assert with_opaque(Opaque.GPU_PDI, gpus + b"\xff" * 64).gpu_pdis[0] == b"\1" * 8
    assert len(with_opaque(Opaque.GPU_PDI, gpus + b"\xff" * 64).gpu_pdis) == 8
    assert REPORT.gpu_pdis == ()


@pytest.mark.parametrize("n", [*range(0, len(GOOD), 13), *range(len(GOOD) - 130, len(GOOD))])
def test_a_cut_report_is_refused(n: int) -> None:
    with pytest.raises(FormatError, match=r"^spdm report"):
        SPDMReport.parse(GOOD[:n])


def test_a_changed_bit_is_refused_or_kept() -> None:
    for at in range(8 * len(GOOD)):
        data = bytearray(GOOD)
        data[at // 8] ^= 1 << at % 8
        if at % 8 and 50 < at // 8 < 3500:
            continue
        try:
            assert SPDMReport.parse(bytes(data)).pack() == data
        except FormatError as error:
            assert str(error).startswith("spdm report")  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD + b"\0", "1 bytes left over, want none"),
        (GOOD + bytes(MAX_BYTES), f"want at most {MAX_BYTES}"),
        (b"\x12" + GOOD[1:], "request header is 12e001ff, want 11e001ff"),
        (GOOD[:38] + b"\x61" + GOOD[39:], "response header is 11610000, want 11600000"),
        (GOOD[:41] + b"\0" + GOOD[42:], "measurement record: 3520 bytes left over|0 blocks"),
        (GOOD[:41] + b"\x41" + GOOD[42:], "measurement record: 0 bytes left"),
        (GOOD[:42] + b"\xff\xff\xff" + GOOD[45:], "bytes left at offset 45"),
        (GOOD[:45] + b"\2" + GOOD[46:], "block 1 has index 2, want 1"),
        (GOOD[:46] + b"\2" + GOOD[47:], "block 1 has specification 2, want 1"),
        (GOOD[:47] + b"\x34" + GOOD[48:], "block 1 is 52 bytes with a value of 48, want 3 more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_length_and_header_is_exact(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        SPDMReport.parse(data)


def test_zeros_behind_the_signature_pass_when_asked_for_and_nothing_else_does() -> None:
    assert SPDMReport.parse(GOOD + bytes(3), trailing="zeros") == REPORT
    with pytest.raises(FormatError, match="reserved bytes"):
        SPDMReport.parse(GOOD + b"\0\1", trailing="zeros")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nonce": bytes(31)}, "nonce is 31 bytes, want 32"),
        ({"signature": bytes(95)}, "signature is 95 bytes, want 96"),
        ({"slot": 256}, "slot is 256"),
        ({"measurements": ()}, "0 blocks, want 1..255"),
        ({"measurements": (Measurement(1, 1, bytes(65)),)}, "holds no value of 1..64 bytes"),
        ({"opaque": (OpaqueField(3, b"a"), OpaqueField(3, b"b"))}, "an opaque type appears twice"),
        ({"opaque": (OpaqueField(1 << 16, b"a"),)}, "does not fit its header"),
    ],
    ids=lambda change: "+".join(change) if isinstance(change, dict) else None,
)
def test_no_way_to_build_a_bad_report(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        replace(REPORT, **change)


@pytest.mark.parametrize(
    ("type", "value", "name"),
    [
        (Opaque.DRIVER_VERSION, b"580/../x\0", "driver_version"),
        (Opaque.DRIVER_VERSION, b"580\x001", "driver_version"),
        (Opaque.DRIVER_VERSION, b"1" * 33, "driver_version"),
        (Opaque.PROJECT, b"\xff", "project"),
        (Opaque.VBIOS_VERSION, b"\0\x5e\0\x96\1\0\0\1", "vbios_version"),
        (Opaque.NVDEC0_STATUS, b"\0", "nvdec0_enabled"),
        (Opaque.PROTECTED_PCIE_STATUS, b"\xaa\xaa", "protected_pcie"),
        (Opaque.FEATURE_FLAG, b"\0", "feature_flag"),
        (Opaque.FWID, bytes(47), "fwid"),
        (Opaque.SWITCH_PDI, bytes(9), "switch_pdis"),
        (Opaque.GPU_PDI, bytes(64), "gpu_pdis"),
    ],
)
def test_an_opaque_value_of_another_shape_is_refused(type: Opaque, value: bytes, name: str) -> None:
    with pytest.raises(FormatError, match=r"^spdm report: "):
        getattr(with_opaque(type, value), name)


def test_what_is_not_there_is_none() -> None:
    bare = replace(REPORT, opaque=(OpaqueField(33, b"unknown"),))
    assert SPDMReport.parse(bare.pack()) == bare
    assert (bare.driver_version, bare.vbios_version, bare.fwid) == (None, None, None)
    assert (bare.protected_pcie, bare.feature_flag) == (None, None)
    assert bare.switch_pdis == bare.gpu_pdis == ()
