"""Mirrors strongroom/wire/pem.py."""

import base64

import pytest

from strongroom.errors import FormatError
from strongroom.wire.pem import certificates


def block(der: bytes, end: bytes = b"\n") -> bytes:
    text = base64.encodebytes(der).replace(b"\n", end)
    return b"-----BEGIN CERTIFICATE-----" + end + text + b"-----END CERTIFICATE-----" + end


FIRST, SECOND = bytes(range(200)), b"\xff" * 31


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_reads_every_certificate_in_order(end: bytes) -> None:
    assert certificates(block(FIRST, end) + block(SECOND, end), "chain") == (FIRST, SECOND)


def test_the_last_line_may_lack_its_end() -> None:
    assert certificates(block(FIRST).rstrip(), "chain") == (FIRST,)


@pytest.mark.parametrize(
    "data",
    [
        b" " + block(FIRST),
        block(FIRST) + b"\n",
        block(FIRST) + b"\0",
        block(FIRST) + b"text\n" + block(SECOND),
        block(FIRST).rstrip() + block(SECOND),
        block(FIRST).replace(b"CERTIFICATE", b"CERTIFICATES"),
        block(FIRST).replace(b"BEGIN CERT", b"BEGIN TRUSTED CERT"),
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        block(FIRST).replace(b"AAEC", b"AA C"),
        block(FIRST).replace(b"AAEC", b"AA=C"),
        block(SECOND).replace(b"/w==", b"/x=="),
        FIRST,
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="chain: "):
        certificates(data, "chain")


def test_counts_and_sizes_are_bounded() -> None:
    with pytest.raises(FormatError, match=r"no certificate, want 1\.\.8"):
        certificates(b"", "chain")
    with pytest.raises(FormatError, match="more than 2 certificates"):
        certificates(block(FIRST) * 3, "chain", most=2)
    with pytest.raises(FormatError, match="want at most 65536"):
        certificates(block(bytes(50000)), "chain")
