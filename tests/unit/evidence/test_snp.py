"""Mirrors strongroom/evidence/snp.py. Real reports are read from the vectors beside the checkout."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.snp import SIGNED_SIZE, SIZE, TCB, FirmwareVersion, SigningKey, SNPReport
from tests import VECTORS
from tests.fakes.silicon import silicon

INDEX: Final = VECTORS / "index.json"
REAL: Final = [
    vector
    for vector in (json.loads(INDEX.read_text())["vectors"] if INDEX.exists() else [])
    if vector["kind"] == "snp-report"
]
GOOD: Final = silicon().report(bytes(64))
REPORT: Final = SNPReport.parse(GOOD)
TCB_9: Final = TCB(bootloader=9, tee=0, snp=22, microcode=80)


@pytest.mark.skipif(not REAL, reason="no real vectors beside this checkout")
def test_all_real_reports_were_found() -> None:
    assert len(REAL) >= 8


def as_expected(report: SNPReport, expected: dict[str, Any]) -> dict[str, Any]:
    """The fields of a report in the spelling of index.json."""
    found: dict[str, Any] = {}
    for name in expected:
        value = getattr(report, name.replace("_version", ""), None)
        if isinstance(value, TCB):
            value = {"raw": value.pack().hex(), **value.levels()}
        elif isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, FirmwareVersion):
            value = str(value)
        elif name in ("policy", "platform_info", "key_info", "launch_mit_vector", "current_mit_vector"):
            value = hex(getattr(report, name))
        found[name] = value
    return found


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_a_real_report_gives_the_listed_fields_and_its_own_bytes(vector: dict[str, Any]) -> None:
    data = (VECTORS / vector["files"]["report"]).read_bytes()
    report = SNPReport.parse(data)
    assert report.pack() == data
    assert report.signed_part == data[:SIGNED_SIZE]
    fields = dict(vector["expect"]["fields"])
    bits, _ = fields.pop("policy_bits"), fields.pop("platform_info_bits")
    _, _ = fields.pop("author_key_en"), fields.pop("mask_chip_key")
    assert report.signing_key is SigningKey[fields.pop("signing_key")]
    assert as_expected(report, fields) == fields
    assert report.debug_allowed is bits["debug_allowed"]
    assert report.migration_allowed is bits["migrate_ma_allowed"]
    assert report.smt_allowed is bits["smt_allowed"]


@pytest.mark.parametrize("n", [*range(0, SIZE, 7), SIZE - 1, SIZE + 1, 2 * SIZE])
def test_only_the_exact_length_parses(n: int) -> None:
    with pytest.raises(FormatError, match=f"got {n} bytes, want 1184"):
        SNPReport.parse((GOOD * 2)[:n])


@pytest.mark.parametrize("at", range(SIZE))
def test_a_changed_byte_is_refused_or_kept(at: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= 0x40
    try:
        assert SNPReport.parse(bytes(data)).pack() == data
    except FormatError as error:
        assert str(error).startswith(("snp report: ", "tcb: "))  # noqa: PT017


@pytest.mark.parametrize("at", [0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x2D0, 0x318, 0x330, 0x49F])
def test_reserved_bytes_must_be_zero(at: int) -> None:
    data = bytearray(GOOD)
    data[at] = 1
    with pytest.raises(FormatError, match="reserved bytes"):
        SNPReport.parse(bytes(data))


@pytest.mark.parametrize("version", [0, 1, 6, 2**32 - 1])
def test_unknown_versions_are_refused(version: int) -> None:
    with pytest.raises(FormatError, match=f"version is {version}, want 2..5"):
        SNPReport.parse(version.to_bytes(4, "little") + GOOD[4:])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "cpuid in version 2, want it from version 3 on"),
        ({"launch_mit_vector": 1}, "mitigation vectors in version 3, want version 5"),
        ({"measurement": bytes(47)}, "measurement is 47 bytes, want 48"),
        ({"policy": 2**64}, "policy does not fit 8 bytes"),
        ({"vmpl": -1}, "vmpl does not fit 4 bytes"),
        ({"signature_r": 2**384}, "signature_r does not fit 48 bytes"),
        ({"cpuid_family": 0x1A}, "current_tcb has the layout of another processor family"),
        ({"reported_tcb": replace(TCB_9, fmc=1)}, "reported_tcb has the layout of another processor family"),
    ],
    ids=lambda change: "+".join(change) if isinstance(change, dict) else None,
)
def test_no_way_to_build_a_bad_report(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        replace(REPORT, **change)


def test_version_5_keeps_its_mitigation_vectors() -> None:
    report = replace(REPORT, version=5, launch_mit_vector=0x3F, current_mit_vector=2**64 - 1)
    assert SNPReport.parse(report.pack()) == report


@pytest.mark.parametrize(
    ("key_info", "key"), [(0, SigningKey.VCEK), (4, SigningKey.VLEK), (28, SigningKey.NONE)]
)
def test_key_info_names_the_signing_key(key_info: int, key: SigningKey) -> None:
    assert replace(REPORT, key_info=key_info | 3).signing_key is key
    assert replace(REPORT, key_info=8).signing_key is None


def test_both_tcb_layouts() -> None:
    assert TCB_9.pack().hex() == "0900000000001650"
    assert TCB.parse(TCB_9.pack(), has_fmc=False) == TCB_9
    turin = TCB.parse(bytes.fromhex("0103020500000061"), has_fmc=True)
    assert turin == TCB(fmc=1, bootloader=3, tee=2, snp=5, microcode=97)
    assert turin.pack().hex() == "0103020500000061"


@pytest.mark.parametrize("data", [bytes(7), bytes(9), bytes.fromhex("0000010000000000")])
def test_a_bad_tcb_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^tcb: "):
        TCB.parse(data, has_fmc=False)


def test_numbers_that_do_not_fit_a_byte_are_refused() -> None:
    with pytest.raises(FormatError, match=r"tcb: snp is 256, want 0..255"):
        replace(TCB_9, snp=256)
    with pytest.raises(FormatError, match=r"firmware version: 1.2.256, want three numbers 0..255"):
        FirmwareVersion(1, 2, 256)
