"""Mirrors strongroom/verify/amd_leaf.py."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384

from strongroom.errors import VerifyError
from strongroom.verify.amd_leaf import Leaf
from strongroom.verify.certificates import load
from tests import VECTORS
from tests.fakes.amd import genuine, needs_vectors

KEY: Final = ec.generate_private_key(ec.SECP384R1())
EXTENSIONS: Final = {
    "2": b"\x16\x08Genoa-B1",
    "3.1": b"\x02\x01\x0a",
    "3.2": b"\x02\x01\x00",
    "3.3": b"\x02\x01\x17",
    "3.4": b"\x02\x01\x00",
    "3.8": b"\x02\x02\x00\xd5",
    "4": bytes(range(64)),
    "5": b"\x16\x04name",
}


def leaf(changes: dict[str, bytes | None] | None = None, key: Any = KEY) -> Leaf:
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([]),
        issuer_name=x509.Name([]),
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=datetime(2025, 1, 1, tzinfo=UTC),
        not_valid_after=datetime(2030, 1, 1, tzinfo=UTC),
    )
    for arc, value in {**EXTENSIONS, **(changes or {})}.items():
        if value is not None:
            oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{arc}")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return Leaf(builder.sign(key, SHA384()), "vcek")


def test_reads_what_amd_writes() -> None:
    good = leaf()
    assert good.product == "Genoa"
    assert good.levels() == {"bootloader": 10, "tee": 0, "snp": 0x17, "microcode": 0xD5}
    assert good.hwid(64) == bytes(range(64))
    assert good.csp_id == "name"
    assert good.key.public_numbers() == KEY.public_key().public_numbers()


def test_turin_has_one_level_more_and_a_short_id() -> None:
    turin = leaf({"3.9": b"\x02\x01\x05", "4": bytes(range(8))})
    assert turin.levels()["fmc"] == 5
    assert turin.hwid(8) == bytes(range(8))


@pytest.mark.parametrize("size", [8, 64])
def test_a_wrapped_hardware_id_is_the_same_id(size: int) -> None:
    assert leaf({"4": bytes((4, size, *range(size)))}).hwid(size) == bytes(range(size))


@needs_vectors
def test_both_spellings_occur_in_the_wild() -> None:
    der = (VECTORS / "snp/milan-v2-azure-cur-gt-rep/vcek-invalid-new.der").read_bytes()
    assert Leaf(load(der, "vcek"), "vcek").hwid(64)[:6] == bytes(range(6))
    table = genuine("turin-v5").table
    assert Leaf(load(table.vcek or b"", "vcek"), "vcek").hwid(8).hex() == "0910b4f884ff4ba9"


@pytest.mark.parametrize(
    "value", [b"", bytes(63), bytes(65), b"\4\x40" + bytes(63), b"\5\x40" + bytes(64), bytes(8)]
)
def test_other_hardware_ids_are_refused(value: bytes) -> None:
    with pytest.raises(VerifyError, match=r"vcek: hardware id is .* bytes, want 64"):
        leaf({"4": value}).hwid(64)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2",
        b"\2\1",
        b"\2\0",
        b"\2\1\x80",
        b"\2\2\0\1",
        b"\2\2\1\0",
        b"\2\1\1\0",
        b"\4\1\1",
        b"\2\x81\1\1",
        b"\1",
    ],
    ids=lambda value: value.hex() or "empty",
)
def test_only_a_der_integer_of_one_byte_is_a_level(value: bytes) -> None:
    with pytest.raises(VerifyError, match=r"vcek: patch level .* want a DER integer 0..255"):
        leaf({"3.3": value}).levels()


def test_an_unused_level_must_be_zero() -> None:
    with pytest.raises(VerifyError, match="vcek: an unused patch level is set, want zero"):
        leaf({"3.4": b"\2\1\1"}).levels()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "not an IA5String"),
        (b"\x16", "not an IA5String"),
        (b"\x16\x05Geno", "not an IA5String"),
        (b"\x16\x05Genoa!", "not an IA5String"),
        (b"\x0c\x05Genoa", "not an IA5String"),
        (b"\x16\x80" + b"x" * 128, "not an IA5String"),
        (b"\x16\x01\xff", "not plain text"),
        (b"\x16\x01\n", "not plain text"),
        (None, "no product name extension"),
    ],
)
def test_other_product_names_are_refused(value: bytes | None, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        _ = leaf({"2": value}).product


def test_a_missing_level_is_not_there() -> None:
    assert "snp" not in leaf({"3.3": None}).levels()


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)]
)
def test_the_key_must_be_on_p384(key: Any) -> None:
    with pytest.raises(VerifyError, match="vcek: key is not on P-384"):
        _ = leaf(key=key).key
