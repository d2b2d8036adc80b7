"""Mirrors strongroom/evidence/outline.py and its siblings: every byte in one field, and the parser's values in them."""

import contextlib
from collections.abc import Callable

import pytest

from strongroom.errors import FormatError
from strongroom.evidence import outline_nvidia, outline_tdx, outline_tpm
from strongroom.evidence.detect import Kind
from strongroom.evidence.outline import Field, Outline, certificate_table, hexed, snp_report
from strongroom.evidence.snp import SNPReport
from tests.fakes.silicon import silicon
from tests.fuzz.targets import specimens

SILICON = silicon()
REPORT = SILICON.report(bytes(range(64)))
OUTLINES: dict[Kind, Callable[[Outline], None]] = {
    Kind.SNP: snp_report,
    Kind.TDX: outline_tdx.quote,
    Kind.TDREPORT: outline_tdx.td_report,
    Kind.HCL: outline_tpm.hcl,
    Kind.TPM_QUOTE: outline_tpm.attest,
    Kind.TPM_SIGNATURE: outline_tpm.signature,
    Kind.TPM_KEY: outline_tpm.public,
    Kind.EVENT_LOG: outline_tpm.event_log,
    Kind.CC_LOG: outline_tpm.event_log,
    Kind.GPU: outline_nvidia.report,
}


def fields(describe: Callable[[Outline], None], data: bytes) -> list[Field]:
    out = Outline(data, "sample")
    describe(out)
    return out.fields


def covers(found: list[Field], data: bytes) -> bool:
    at = 0
    for field in found:
        if field.offset != at or field.size <= 0:
            return False
        at += field.size
    return at == len(data)


@pytest.mark.parametrize("kind", OUTLINES)
def test_every_byte_of_genuine_evidence_is_in_one_field(kind: Kind) -> None:
    samples = specimens().get(kind, ())
    if not samples:
        pytest.skip("no real vectors beside this checkout")
    whole = 0
    for data in samples:
        try:
            found = fields(OUTLINES[kind], data)
        except FormatError:  # a damaged one among them
            continue
        assert covers(found, data)
        whole += 1
    assert whole


def test_an_snp_report_has_the_parsers_values() -> None:
    found = {field.name: field for field in fields(snp_report, REPORT)}
    report = SNPReport.parse(REPORT)
    assert covers(list(fields(snp_report, REPORT)), REPORT)
    assert found["MEASUREMENT"].value == report.measurement.hex() and found["MEASUREMENT"].offset == 0x90
    assert found["REPORT_DATA"].value == bytes(range(64)).hex()
    assert found["POLICY"].value.startswith(f"0x{report.policy:016x} (smt_allowed")
    assert f"snp={report.reported_tcb.snp} " in found["REPORTED_TCB"].value


def test_a_certificate_table() -> None:
    data = SILICON.certificates()
    found = fields(certificate_table, data)
    assert covers(found, data)
    assert [f.name for f in found if f.name.startswith("certificate")] and "DER" in found[-1].value


def test_left_over_bytes_are_shown() -> None:
    assert fields(snp_report, REPORT + b"x")[-1] == Field(1184, 1, "left over", "78")


@pytest.mark.parametrize(
    "describe", [*OUTLINES.values(), certificate_table], ids=lambda d: f"{d.__module__[-6:]}.{d.__name__}"
)
def test_a_cut_shows_what_stands_before_it(describe: Callable[[Outline], None]) -> None:
    for data in (REPORT, bytes(100), b"\xff" * 100, b"\x01" * 3000):
        for end in range(0, len(data), 37):
            out = Outline(data[:end], "sample")
            with contextlib.suppress(FormatError):
                describe(out)
            assert sum(field.size for field in out.fields) <= end


def test_values_in_words() -> None:
    assert hexed(bytes(9)) == "00 x 9" and hexed(bytes(8)) == "00" * 8
    assert hexed(bytes(range(200))).endswith("(200 bytes)")
    out = Outline(b"\x0a\x00hello\0\xff\xfe\x05", "sample")
    assert out.number("n", 2, words={10: "ten"}) == 10 and out.fields[-1].value == "10 = 0xa (ten)"
    out.text("t", 6)
    assert out.fields[-1].value == "'hello'"
    out.text("u", 2)
    assert out.fields[-1].value == "fffe"
    assert out.bits("b", 1, {"low": 0, "high": 2}) == 5 and out.fields[-1].value == "0x05 (low, high)"
    with pytest.raises(FormatError, match="0 bytes left"):
        out.take("more", 1)
