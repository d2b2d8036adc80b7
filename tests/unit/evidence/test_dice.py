"""Mirrors strongroom/evidence/dice.py."""

from contextlib import suppress
from typing import Any, Final

import pytest
from cryptography import x509

from strongroom.errors import FormatError
from strongroom.evidence.dice import COMPOSITE_DEVICE_ID, TCB_INFO, fwids
from tests.fakes.nvidia import content, der, fwid_extension, vectors

ONE, TWO = bytes([1]) * 48, bytes([2]) * 48


def value(*digests: bytes, composite: bool) -> bytes:
    extension, _ = fwid_extension(*digests, composite=composite)
    assert isinstance(extension, x509.UnrecognizedExtension)
    return extension.value


HOPPER: Final = value(ONE, composite=True)
BLACKWELL: Final = value(ONE, TWO, composite=False)


def test_both_forms() -> None:
    assert fwids(COMPOSITE_DEVICE_ID, HOPPER) == (ONE,)
    assert fwids(TCB_INFO, BLACKWELL) == (ONE, TWO)


@pytest.mark.parametrize("vector", vectors("nvidia-report"), ids=lambda vector: vector["id"])
def test_real_leaves(vector: dict[str, Any]) -> None:
    leaf = x509.load_pem_x509_certificates(content(vector, "cert_chain"))[0]
    oid = vector["expect"]["leaf_fwid_oid"]
    extension = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    assert fwids(oid, extension.value)[0].hex() == vector["expect"]["leaf_fwid"]


@pytest.mark.parametrize(("oid", "good"), [(COMPOSITE_DEVICE_ID, HOPPER), (TCB_INFO, BLACKWELL)])
def test_a_cut_or_longer_value_is_refused(oid: str, good: bytes) -> None:
    for n in range(len(good)):
        with pytest.raises(FormatError, match=r"^dice extension: "):
            fwids(oid, good[:n])
    with pytest.raises(FormatError, match="1 bytes left over"):
        fwids(oid, good + b"\0")


@pytest.mark.parametrize(("oid", "good"), [(COMPOSITE_DEVICE_ID, HOPPER), (TCB_INFO, BLACKWELL)])
def test_a_changed_bit_changes_the_firmware_or_is_refused(oid: str, good: bytes) -> None:
    quiet = 0
    for at in range(8 * len(good)):
        data = bytearray(good)
        data[at // 8] ^= 1 << at % 8
        with suppress(FormatError):
            quiet += fwids(oid, bytes(data)) == fwids(oid, good)
    assert quiet <= 8 * (6 + 1 + 1) + 40  # vendor, layer and flags of DiceTcbInfo, and tags that are skipped


@pytest.mark.parametrize(
    ("oid", "data", "why"),
    [
        ("1.2.3", HOPPER, "1.2.3 is none that holds firmware ids"),
        (COMPOSITE_DEVICE_ID, BLACKWELL, "der tag is 0x80, want 0x02"),
        (TCB_INFO, HOPPER, "tag 0x2 is out of order"),
        (TCB_INFO, der(0x30, der(0x80, b"a")), "0 firmware ids"),
        (TCB_INFO, der(0x30, der(0x81, b"a") + der(0x80, b"a")), "tag 0x80 is out of order"),
        (TCB_INFO, value(*[ONE] * 9, composite=False), "9 firmware ids"),
        (TCB_INFO, value(ONE[:47], composite=False), "octet string is 47 bytes, want 48"),
        (TCB_INFO, BLACKWELL.replace(b"\2\2\4\x30", b"\2\1\4\x30"), "want SHA-384"),
        (COMPOSITE_DEVICE_ID, b"\x30\x81\x7f" + bytes(127), "length is not in the shortest form"),
        (COMPOSITE_DEVICE_ID, b"\x30\x80", "length is not in the shortest form"),
        (COMPOSITE_DEVICE_ID, b"\x30\x83\0\0\1\0", "length is not in the shortest form"),
        (COMPOSITE_DEVICE_ID, HOPPER.replace(b"\2\1\1", b"\2\1\2"), r"number is 02, want 0\.\.1"),
    ],
)
def test_other_values_are_refused(oid: str, data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        fwids(oid, data)
