"""Mirrors strongroom/evidence/snp_certs.py."""

from typing import Final
from uuid import UUID

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.snp_certs import MAX_BYTES, MAX_CERTIFICATE, CertificateTable

TABLE: Final = CertificateTable(vcek=b"leaf", ask=b"intermediate", ark=b"root")
PACKED: Final = TABLE.pack()
VCEK: Final = UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes_le
UNKNOWN: Final = UUID("00000000-0000-4000-8000-000000000001").bytes_le


def entry(guid: bytes, offset: int, length: int) -> bytes:
    return guid + offset.to_bytes(4, "little") + length.to_bytes(4, "little")


def test_the_bytes_are_those_of_the_specification() -> None:
    assert CertificateTable(vcek=b"leaf").pack() == (
        bytes.fromhex("8d75da6364e66445adc5f4b93be8accd") + b"\x30\0\0\0\x04\0\0\0" + bytes(24) + b"leaf"
    )


@pytest.mark.parametrize(
    "table",
    [TABLE, CertificateTable(), CertificateTable(vlek=b"v", ask=b"a", ark=b"r", crl=b"c")],
    ids=["vcek", "empty", "vlek"],
)
def test_round_trips(table: CertificateTable) -> None:
    assert CertificateTable.parse(table.pack()) == table


def test_a_host_may_pad_reorder_and_add_what_we_do_not_know() -> None:
    data = entry(UNKNOWN, 76, 2) + entry(VCEK, 72, 4) + bytes(24) + b"leaf" + b"??" + bytes(100)
    assert CertificateTable.parse(data) == CertificateTable(vcek=b"leaf")


@pytest.mark.parametrize("n", range(1, len(PACKED)))
def test_nothing_shorter_parses(n: int) -> None:
    with pytest.raises(FormatError, match=r"^snp certificate table: "):
        CertificateTable.parse(PACKED[:n])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (entry(VCEK, 48, 0) + bytes(24), "0 bytes at 48 are empty, overlap, or leave the table"),
        (entry(VCEK, 47, 1) + bytes(24) + b"x", "1 bytes at 47 are empty"),
        (entry(VCEK, 0, 4) + bytes(24), "4 bytes at 0 are empty"),
        (entry(VCEK, 48, 2**32 - 1) + bytes(24) + b"x", "leave the table"),
        (entry(VCEK, 2**32 - 1, 1) + bytes(24) + b"x", "leave the table"),
        (entry(VCEK, 72, 2) + entry(UNKNOWN, 73, 2) + bytes(24) + b"xyz", "2 bytes at 73 are empty, overlap"),
        (entry(VCEK, 72, 1) + entry(VCEK, 73, 1) + bytes(24) + b"xy", "vcek appears twice"),
        (entry(UNKNOWN, 1, 1) * 17 + bytes(24), "more than 16 entries"),
        (bytes(MAX_BYTES + 1), "want at most 65536"),
        (entry(VCEK, 48, MAX_CERTIFICATE + 1) + bytes(24 + MAX_CERTIFICATE + 1), "vcek is 16385 bytes"),
    ],
)
def test_bad_tables_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        CertificateTable.parse(data)


def test_an_empty_certificate_is_none() -> None:
    with pytest.raises(FormatError, match="ask is 0 bytes"):
        CertificateTable(ask=b"")
