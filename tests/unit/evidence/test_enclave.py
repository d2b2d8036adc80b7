"""Mirrors strongroom/evidence/enclave.py."""

from dataclasses import replace

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.enclave import SIZE, EnclaveReport
from tests.fakes.intel import QE_REPORT

GOOD = replace(QE_REPORT, config_id=b"\1" * 64, isv_family_id=b"\2" * 16, isv_ext_prod_id=b"\3" * 16)
RESERVED = (range(20, 32), range(96, 128), range(160, 192), range(262, 304))


def test_a_report_has_one_encoding() -> None:
    data = GOOD.pack()
    assert len(data) == SIZE
    assert EnclaveReport.parse(data) == GOOD
    assert data[64:96] == GOOD.mr_enclave
    assert data[128:160] == GOOD.mr_signer
    assert (data[256], data[258]) == (2, 7)


@pytest.mark.parametrize("n", [n for n in range(2 * SIZE) if n != SIZE])
def test_only_the_exact_length_parses(n: int) -> None:
    with pytest.raises(FormatError, match=f"got {n} bytes, want 384"):
        EnclaveReport.parse((GOOD.pack() * 2)[:n])


@pytest.mark.parametrize("at", [at for part in RESERVED for at in part])
def test_reserved_bytes_are_zero(at: int) -> None:
    data = bytearray(GOOD.pack())
    data[at] = 1
    with pytest.raises(FormatError, match="reserved bytes"):
        EnclaveReport.parse(bytes(data))


def test_every_bit_is_kept() -> None:
    good = GOOD.pack()
    for at in set(range(SIZE)) - {at for part in RESERVED for at in part}:
        data = bytearray(good)
        data[at] ^= 1 << at % 8
        assert EnclaveReport.parse(bytes(data)).pack() == bytes(data)


def test_no_constructor_makes_a_bad_report() -> None:
    with pytest.raises(FormatError, match="mr_signer is 31 bytes, want 32"):
        replace(GOOD, mr_signer=bytes(31))
    with pytest.raises(FormatError, match="isv_svn does not fit 2 bytes"):
        replace(GOOD, isv_svn=0x10000)


def test_debug_is_the_second_bit() -> None:
    assert not GOOD.debug
    assert replace(GOOD, attributes=b"\2" + bytes(15)).debug
