"""Mirrors strongroom/evidence/tpm.py."""

from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.tpm import (
    Attributes,
    Curve,
    Hash,
    PCRSelection,
    Scheme,
    TPMPublic,
    TPMQuote,
    TPMSignature,
)
from tests import VECTORS
from tests.fakes.tpm import AK_ATTRIBUTES, ec_tpm, rsa_tpm

Kind = type[TPMQuote] | type[TPMSignature] | type[TPMPublic]

TPM: Final = rsa_tpm()
QUOTE, SIGNATURE = TPM.quote()
EC: Final = ec_tpm()
PACKED: Final[dict[str, tuple[Kind, bytes]]] = {
    "quote": (TPMQuote, QUOTE.pack()),
    "two banks": (
        TPMQuote,
        replace(QUOTE, pcr_select=(*QUOTE.pcr_select, PCRSelection(Hash.SHA1, frozenset({23})))).pack(),
    ),
    "rsa signature": (TPMSignature, SIGNATURE.pack()),
    "ecdsa signature": (TPMSignature, EC.quote()[1].pack()),
    "rsa key": (TPMPublic, TPM.public.pack()),
    "ecc key": (TPMPublic, EC.public.pack()),
    "key without a scheme": (TPMPublic, replace(TPM.public, scheme=None, hash=None, exponent=3).pack()),
}
REAL: Final = sorted((VECTORS / "tpm").rglob("*.attest")) + sorted((VECTORS / "azure").rglob("tpm_quote.msg"))


@pytest.mark.parametrize("name", PACKED)
def test_packing_and_parsing_are_one_another_s_inverse(name: str) -> None:
    kind, data = PACKED[name]
    assert kind.parse(data).pack() == data


@pytest.mark.parametrize("name", PACKED)
def test_no_other_length_parses(name: str) -> None:
    kind, data = PACKED[name]
    for n in range(len(data)):
        with pytest.raises(FormatError):
            kind.parse(data[:n])
    with pytest.raises(FormatError, match="1 bytes left over"):
        kind.parse(data + b"\0")


@pytest.mark.parametrize("name", PACKED)
def test_a_changed_bit_is_refused_or_kept(name: str) -> None:
    kind, data = PACKED[name]
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            parsed = kind.parse(bytes(changed))
        except FormatError as error:
            assert str(error).startswith(("tpm ", "pcr selection"))  # noqa: PT017
        else:
            assert parsed.pack() == changed


@pytest.mark.skipif(not REAL, reason="no real vectors beside this checkout")
@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_quotes_give_their_own_bytes(path: Any) -> None:
    data = path.read_bytes()
    assert TPMQuote.parse(data).pack() == data


def test_a_google_key_has_the_name_its_quotes_are_signed_under() -> None:
    folder = VECTORS / "tpm/gce-cos85-nonce9009"
    if not folder.exists():
        pytest.skip("no real vectors beside this checkout")
    data = (folder / "ak_pub.tpmt").read_bytes()
    public = TPMPublic.parse(data)
    assert public.pack() == data
    assert public.attributes == 0x50072
    assert (public.scheme, public.hash, public.key_bits) == (Scheme.RSASSA, Hash.SHA256, 2048)
    quote = TPMQuote.parse((folder / "quote_sha256.attest").read_bytes())
    endorsement_hierarchy = (0x4000000B).to_bytes(4, "big")
    assert quote.qualified_signer == b"\0\x0b" + Hash.SHA256.digest(endorsement_hierarchy + public.name)


def test_the_bitmap_is_read_from_the_low_bit_of_the_first_byte() -> None:
    selection = PCRSelection(Hash.SHA256, frozenset({0, 9, 23}))
    assert selection.pack().hex() == "000b03010280"


@pytest.mark.parametrize(
    ("at", "new", "why"),
    [
        (0, "fe", "magic is 0xfe544347, want 0xff544347"),
        (4, "8017", "type is 0x8017, want 0x8018"),
    ],
)
def test_what_is_no_quote_is_refused(at: int, new: str, why: str) -> None:
    data = bytearray(QUOTE.pack() + bytes(100))
    data[at : at + len(new) // 2] = bytes.fromhex(new)
    with pytest.raises(FormatError, match=why):
        TPMQuote.parse(bytes(data))


@pytest.mark.parametrize("size", [0, 1, 2, 4, 32])
def test_a_bitmap_of_another_width_is_refused(size: int) -> None:
    packed = QUOTE.pcr_select[0].pack()
    other = packed[:2] + bytes((size,)) + bytes(size)
    with pytest.raises(FormatError, match=f"bitmap of {size} bytes, want 3"):
        TPMQuote.parse(QUOTE.pack().replace(packed, other))


def test_counts_are_bounded_before_anything_is_read() -> None:
    selection = QUOTE.pcr_select[0].pack()
    data = QUOTE.pack().replace(b"\0\0\0\x01" + selection, b"\xff\xff\xff\xff" + selection)
    with pytest.raises(FormatError, match="4294967295 pcr selections, want at most 16"):
        TPMQuote.parse(data)
    with pytest.raises(FormatError, match="17 pcr selections"):
        replace(QUOTE, pcr_select=QUOTE.pcr_select * 17)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extra_data": bytes(67)}, "extra_data is 67 bytes"),
        ({"qualified_signer": bytes(67)}, "qualified_signer is 67 bytes"),
        ({"pcr_digest": bytes(65)}, "pcr_digest is 65 bytes"),
        ({"clock": 1 << 64}, "clock does not fit 8 bytes"),
        ({"reset_count": -1}, "reset_count does not fit 4 bytes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_no_way_to_build_a_bad_quote(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        replace(QUOTE, **change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"attributes": Attributes(AK_ATTRIBUTES | 1)}, "reserved bits"),
        ({"auth_policy": bytes(65)}, "policy of 65 bytes"),
        ({"hash": None}, "want both or neither"),
        ({"scheme": Scheme.ECDSA}, "does not fit the kind of key"),
        ({"key_bits": 1024}, "1024 bits"),
        ({"unique": (bytes(256),)}, "modulus is not of 2048 bits"),
        ({"unique": ()}, "modulus is not of 2048 bits"),
        ({"exponent": 4}, "exponent is 4"),
        ({"exponent": 1}, "exponent is 1"),
        ({"curve": Curve.P256, "scheme": None, "hash": None}, "two coordinates of 32 bytes"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_no_way_to_build_a_bad_key(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        replace(TPM.public, **change)


@pytest.mark.parametrize(
    ("scheme", "numbers", "why"),
    [
        (Scheme.RSASSA, (b"1", b"2"), "2 numbers, want 1"),
        (Scheme.ECDSA, (b"1",), "1 numbers, want 2"),
        (Scheme.RSAPSS, (b"",), "number of 0 bytes"),
        (Scheme.RSAPSS, (bytes(513),), "number of 513 bytes"),
    ],
)
def test_no_way_to_build_a_bad_signature(scheme: Scheme, numbers: tuple[bytes, ...], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        TPMSignature(scheme, Hash.SHA256, numbers)


@pytest.mark.parametrize(
    ("at", "new", "why"),
    [
        (0, "0025", "type is 0x0025, want RSA or ECC"),
        (2, "0012", "hash is 0x0012"),
        (10, "0006", "symmetric algorithm 0x0006"),
        (12, "0017", "scheme is 0x0017"),
    ],
)
def test_keys_of_other_kinds_are_refused(at: int, new: str, why: str) -> None:
    data = bytearray(TPM.public.pack())
    data[at : at + 2] = bytes.fromhex(new)
    with pytest.raises(FormatError, match=why):
        TPMPublic.parse(bytes(data))
