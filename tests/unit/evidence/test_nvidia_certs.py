"""Mirrors strongroom/evidence/nvidia_certs.py."""

from typing import Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.nvidia_certs import MAX_BYTES, parse_chain
from tests.fakes.nvidia import nvidia

GPU: Final = nvidia().device()
DER: Final = b"".join(GPU.ders)


def test_pem_and_der_give_the_same_chain() -> None:
    assert parse_chain(GPU.pem) == parse_chain(DER) == GPU.ders
    assert parse_chain(GPU.pem.replace(b"\n", b"\r\n") + b"\n\0") == GPU.ders


@pytest.mark.parametrize("n", range(0, len(DER), 7))
def test_a_cut_chain_is_shorter_or_refused(n: int) -> None:
    for data in (DER[:n], GPU.pem[: n * len(GPU.pem) // len(DER)]):
        try:
            assert parse_chain(data) == GPU.ders[: len(parse_chain(data))]
        except FormatError as error:
            assert str(error).startswith("nvidia certificates: ")  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes"),
        (bytes(MAX_BYTES + 1), f"want 1..{MAX_BYTES}"),
        (b"junk", "neither PEM nor DER"),
        (DER + b"\0", "bytes left at offset"),
        (GPU.pem + b"junk", "does not start a certificate in PEM"),
        (GPU.pem.replace(b"-----END", b"*-----END", 1), "byte 0 does not start a certificate"),
        (GPU.pem.replace(b"BEGIN CERT", b"BEGIN TRUST", 1), "byte 0 does not start"),
        (b"-\xff", "byte 0 does not start"),
        ((DER[: len(GPU.ders[0])]) * 9, "more than 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse_chain(data)
