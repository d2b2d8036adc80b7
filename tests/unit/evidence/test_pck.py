"""Mirrors strongroom/evidence/pck.py. That index.json's fields are read is shown with whole quotes."""

from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography import x509

from strongroom.errors import FormatError
from strongroom.evidence.pck import OID, PCKExtension
from strongroom.wire.pem import certificates
from tests import VECTORS
from tests.fakes.intel import COMPONENTS, FMSPC, der, pair, pck_extension
from tests.fakes.tdx_vectors import cases

GOOD = pck_extension()


def test_reads_what_intel_writes() -> None:
    extension = PCKExtension.parse(GOOD)
    assert extension.ppid == b"\x55" * 16
    assert extension.sgx_tcb_components == COMPONENTS
    assert (extension.pce_svn, extension.cpu_svn) == (13, bytes(COMPONENTS))
    assert (extension.fmspc, extension.pce_id, extension.sgx_type) == (FMSPC, bytes(2), 1)
    assert (extension.dynamic_platform, extension.cached_keys, extension.smt_enabled) == (True, False, True)


@pytest.mark.skipif(not VECTORS.exists(), reason="no real vectors beside this checkout")
def test_every_genuine_certificate_reads_as_expected() -> None:
    checked = 0
    for case in cases():
        if not case.pck:
            continue
        pem = case.quote[case.quote.index(b"-----BEGIN") :].rpartition(b"-----END CERTIFICATE-----")
        leaf = x509.load_der_x509_certificate(certificates(pem[0] + pem[1], "chain")[0])
        value = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(OID)).value
        assert isinstance(value, x509.UnrecognizedExtension)
        extension, want = PCKExtension.parse(value.value), case.pck
        assert extension.ppid.hex() == want["ppid"]
        assert list(extension.sgx_tcb_components) == want["comp"]
        assert extension.pce_svn == want["pcesvn"]
        assert extension.cpu_svn.hex() == want["cpusvn"]
        assert extension.pce_id.hex() == want["pceid"]
        assert extension.fmspc.hex() == want["fmspc"]
        assert extension.sgx_type == want["sgxtype"]
        assert (extension.platform_instance_id or b"").hex() == want["piid"]
        flags = (extension.dynamic_platform, extension.cached_keys, extension.smt_enabled)
        assert flags == tuple(
            None if f"7.{n}" not in want["conf"] else want["conf"][f"7.{n}"] == "ff" for n in (1, 2, 3)
        )
        checked += 1
    assert checked == 10


@pytest.mark.parametrize("n", range(len(GOOD)))
def test_a_cut_extension_is_refused(n: int) -> None:
    with pytest.raises(FormatError):
        PCKExtension.parse(GOOD[:n])


def test_a_flipped_bit_is_read_or_refused_with_a_sentence() -> None:
    for at in range(len(GOOD)):
        for bit in range(8):
            data = bytearray(GOOD)
            data[at] ^= 1 << bit
            with suppress(FormatError):
                PCKExtension.parse(bytes(data))


def test_members_come_once_from_their_arc_and_whole() -> None:
    first = pair("1", der(0x04, bytes(16)))
    for data, why in (
        (der(0x30, first, first), "appears twice"),
        (der(0x30, der(0x30, der(0x06, b"\x55\x04\x03"))), "outside of its arc"),
        (der(0x30, first), "lacks 1.2.840.113741.1.13.1.2"),
        (der(0x30, first[:-18] + first[-18:] + b"\5\0"), "der tag is 0x05"),
        (GOOD + b"\0", "1 bytes left over"),
        (b"", "0 bytes left"),
    ):
        with pytest.raises(FormatError, match=why):
            PCKExtension.parse(data)


def test_a_member_intel_adds_is_passed_over() -> None:
    more = der(0x30, GOOD[4:], pair("9", der(0x05)))
    assert PCKExtension.parse(more) == PCKExtension.parse(GOOD)


def test_an_older_platform_lacks_the_last_two() -> None:
    content = GOOD[4:]
    short = der(0x30, content[: content.index(pair("6", der(0x04, b"\x66" * 16)))])
    extension = PCKExtension.parse(short)
    assert extension.platform_instance_id is None
    assert extension.smt_enabled is None


@pytest.mark.parametrize(
    "data",
    [pck_extension(components=COMPONENTS[:15]), pck_extension(pce_svn=0x10000), pck_extension(pce_id=b"")],
)
def test_counts_and_sizes_are_exact(data: bytes) -> None:
    with pytest.raises(FormatError, match="pck extension: "):
        PCKExtension.parse(data)
    with pytest.raises(FormatError, match="15 tcb components, want 16"):
        replace(PCKExtension.parse(GOOD), sgx_tcb_components=COMPONENTS[:15])
