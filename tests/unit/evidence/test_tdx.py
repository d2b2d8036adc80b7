"""Mirrors strongroom/evidence/tdx.py."""

import json
from dataclasses import fields, replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.tdx import DEBUG, MIGRATABLE, REPORT_SIZE, TDReport, TDReportBody, TDXQuote
from tests import VECTORS
from tests.fakes.intel import BODY, BODY_1_5, Platform
from tests.fakes.tdx_vectors import INDEX, cases

needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason="no real vectors beside this checkout")
QUOTES: Final = {
    "v4": Platform().quote().pack(),
    "v5 of tdx 1.0": Platform(version=5).quote().pack(),
    "v5 of tdx 1.5": Platform(version=5, body=BODY_1_5).quote().pack(),
}
REPORT: Final = TDReport(version=1, cpu_svn=b"\1" * 16, mac=b"\2" * 32, valid=b"\3" * 8, body=BODY_1_5)


def _hex(value: Any) -> Any:
    return value.to_bytes(8, "little").hex() if isinstance(value, int) else value.hex()


@needs_vectors
def test_every_field_of_every_genuine_quote_reads_as_expected() -> None:
    genuine = [case for case in cases() if case.kind == "tdx-quote"]
    for case in genuine:
        quote, want = TDXQuote.parse(case.quote, trailing="any"), case.fields
        assert (quote.version, quote.body_type, quote.att_key_type) == (
            want["version"],
            want["body_type"],
            want["att_key_type"],
        )
        assert (hex(quote.tee_type), quote.qe_vendor_id.hex()) == (want["tee_type"], want["qe_vendor_id"])
        assert quote.user_data.hex() == want["user_data"]
        assert len(quote.trailing) == want["trailing_bytes"]
        assert len(case.quote) - len(quote.trailing) == want["quote_length_used"]
        for field in fields(TDReportBody):
            value = getattr(quote.body, field.name)
            assert (None if value is None else _hex(value)) == want.get(field.name)
        bits = want["td_attributes_bits"]
        assert (quote.body.debug, quote.body.sept_ve_disable, quote.body.migratable) == (
            bits["debug"],
            bits["sept_ve_disable"],
            bits["migratable"],
        )
        assert quote.body.reserved_attributes == 0
        assert quote.pack() == case.quote
    assert len(genuine) == 9


@pytest.mark.parametrize("data", QUOTES.values(), ids=QUOTES.keys())
def test_a_quote_has_one_encoding(data: bytes) -> None:
    quote = TDXQuote.parse(data)
    assert quote.pack() == data
    assert data.startswith(quote.signed_part)


@pytest.mark.parametrize("data", QUOTES.values(), ids=QUOTES.keys())
def test_a_cut_quote_is_refused(data: bytes) -> None:
    for n in range(len(data)):
        with pytest.raises(FormatError):
            TDXQuote.parse(data[:n], trailing="any")


@pytest.mark.parametrize("data", QUOTES.values(), ids=QUOTES.keys())
def test_every_bit_is_kept_or_refused(data: bytes) -> None:
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            assert TDXQuote.parse(bytes(changed)).pack() == bytes(changed)
        except FormatError:
            continue


def test_what_may_follow_a_quote_is_named() -> None:
    data = QUOTES["v4"]
    assert TDXQuote.parse(data + bytes(70)).trailing == bytes(70)
    assert TDXQuote.parse(data + b"\0x", trailing="any").trailing == b"\0x"
    assert TDXQuote.parse(data, trailing="none").trailing == b""
    with pytest.raises(FormatError, match="2 bytes, not all zero, follow it, want zeros"):
        TDXQuote.parse(data + b"\0x")
    with pytest.raises(FormatError, match="1 bytes follow it, want none"):
        TDXQuote.parse(data + b"\0", trailing="none")


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, b"\3", "version is 3, want 4 or 5"),
        (2, b"\3", "attestation key type is 0x3, want 0x2"),
        (4, b"\0", "tee type is 0x0, want 0x81"),
        (8, b"\1", "reserved bytes"),
        (12, b"\0", "qe vendor id is"),
        (636 + 128, b"\1", "certification data type is 0x1, want 0x6"),
        (636 + 128 + 6 + 448 + 2 + 32, b"\6", "certification data type is 0x6, want 0x5"),
        (636 + 128 + 2, b"\0\0", "bytes left over|bytes left at"),
        (632, b"\xff\xff\xff\xff", "want 4294967295"),
        (636 + 128 + 6 + 448, b"\xff\xff", "want 65535"),
    ],
)
def test_each_wrong_part_is_named(at: int, value: bytes, why: str) -> None:
    data = bytearray(QUOTES["v4"])
    data[at : at + len(value)] = value
    with pytest.raises(FormatError, match=why):
        TDXQuote.parse(bytes(data))


@pytest.mark.parametrize("descriptor", ["010080010000", "020088020000", "030048020000", "0400a8020000"])
def test_a_body_is_as_long_as_its_type(descriptor: str) -> None:
    data = bytearray(QUOTES["v5 of tdx 1.5"])
    data[48:54] = bytes.fromhex(descriptor)
    with pytest.raises(FormatError, match="want 2 of 584 or 3 of 648"):
        TDXQuote.parse(bytes(data))


def test_a_quote_is_bounded() -> None:
    with pytest.raises(FormatError, match="65537 bytes, want at most 65536"):
        TDXQuote.parse(QUOTES["v4"].ljust(65537, b"\0"))


def test_no_constructor_makes_a_bad_value() -> None:
    quote = Platform().quote()
    for make, why in (
        (lambda: replace(quote, version=3), "version is 3"),
        (lambda: replace(quote, body=BODY_1_5), "body of tdx 1.5 in version 4"),
        (lambda: replace(quote, signature=bytes(63)), "signature is 63 bytes"),
        (lambda: replace(quote, qe_auth_data=bytes(0x10000)), "at most 65535"),
        (lambda: replace(BODY, mr_td=bytes(47)), "mr_td is 47 bytes"),
        (lambda: replace(BODY, xfam=1 << 64), "xfam does not fit 8 bytes"),
        (lambda: replace(BODY, tee_tcb_svn2=bytes(16)), "16 and 48, or neither"),
        (lambda: replace(REPORT, version=2), "version is 2"),
        (lambda: replace(REPORT, mac=b""), "mac is 0 bytes"),
        (lambda: replace(REPORT, body=BODY), "body of tdx 1.0"),
        (
            lambda: replace(REPORT, version=0, body=replace(BODY_1_5, mr_service_td=b"\1" * 48)),
            "servtd_hash in version 0",
        ),
    ):
        with pytest.raises(FormatError, match=why):
            make()


@pytest.mark.parametrize("n", [0, 583, 585, 647, 649])
def test_a_body_has_two_lengths(n: int) -> None:
    with pytest.raises(FormatError, match=f"got {n} bytes, want 584 or 648"):
        TDReportBody.parse(bytes(n))


def test_attributes_are_read_by_bit() -> None:
    body = replace(BODY, td_attributes=DEBUG | MIGRATABLE | 1 << 5)
    assert (body.debug, body.migratable, body.sept_ve_disable) == (True, True, False)
    assert body.reserved_attributes == 1 << 5
    assert (BODY.module_svn, BODY.module_version) == (6, 1)


@needs_vectors
def test_a_genuine_report_reads_as_expected() -> None:
    vectors = json.loads(INDEX.read_text())["vectors"]
    vector = next(vector for vector in vectors if vector["kind"] == "tdx-tdreport")
    data, want = (VECTORS / vector["files"]["report"]).read_bytes(), vector["expect"]
    report = TDReport.parse(data)
    assert report.pack() == data
    for name in ("report_data", "tee_tcb_svn", "xfam", "rtmr0", "rtmr1", "rtmr2", "rtmr3"):
        assert _hex(getattr(report.body, name)) == want[name]
    assert report.body.mr_td.hex() == want["mrtd"]
    assert _hex(report.body.td_attributes) == want["attributes"]


def test_a_report_has_one_encoding() -> None:
    data = REPORT.pack()
    assert len(data) == REPORT_SIZE
    assert TDReport.parse(data) == REPORT
    for n in (0, 1023, 1025):
        with pytest.raises(FormatError, match=f"got {n} bytes, want 1024"):
            TDReport.parse(data.ljust(n, b"\0")[:n])


def test_every_bit_of_a_report_is_hashed_named_or_kept() -> None:
    free = {2, *range(16, 32), *range(128, 192), *range(224, 256)}  # version, cpu_svn, report data, mac
    good = REPORT.pack()
    for at in range(REPORT_SIZE):
        data = bytearray(good)
        data[at] ^= 1
        if at in free:
            assert TDReport.parse(bytes(data)).pack() == bytes(data)
        else:
            with pytest.raises(FormatError):
                TDReport.parse(bytes(data))
