"""Mirrors strongroom/wire/der.py."""

import pytest

from strongroom.errors import FormatError
from strongroom.wire.der import DER, ENUMERATED, OCTET_STRING


def der(text: str) -> DER:
    return DER(bytes.fromhex(text), "thing")


@pytest.mark.parametrize(
    ("text", "value"), [("020100", 0), ("02017f", 127), ("02020080", 128), ("0202 00ff", 255)]
)
def test_reads_whole_numbers(text: str, value: int) -> None:
    cursor = der(text)
    assert cursor.integer(most=255) == value
    cursor.end()


@pytest.mark.parametrize(
    "text", ["0200", "020180", "0201ff", "02020001", "0202017f", "02020100", "0a0101", "0281 01 01"]
)
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="thing: "):
        der(text).integer(most=255)


def test_an_enumerated_is_a_number_by_its_own_tag() -> None:
    assert der("0a0101").integer(most=255, tag=ENUMERATED) == 1


@pytest.mark.parametrize(
    ("text", "dotted"),
    [
        ("060a2a864886f84d010d0101", "1.2.840.113741.1.13.1.1"),
        ("0603550403", "2.5.4.3"),
        ("060100", "0.0"),
        ("0603883703", "2.999.3"),
    ],
)
def test_reads_object_identifiers(text: str, dotted: str) -> None:
    assert der(text).oid() == dotted


@pytest.mark.parametrize("text", ["0600", "060180", "06022a86", "06032a8001", "0621" + "2a" * 33, "04012a"])
def test_other_object_identifiers_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="thing: "):
        der(text).oid()


def test_reads_what_is_inside() -> None:
    outer = der("3007 0101ff 0402 beef".replace(" ", ""))
    inner = outer.inside()
    outer.end()
    assert inner.more and inner.boolean()
    assert inner.octets(2) == b"\xbe\xef"
    inner.end()
    assert not inner.more


@pytest.mark.parametrize("text", ["010101", "0100", "01020000"])
def test_a_boolean_has_two_forms(text: str) -> None:
    with pytest.raises(FormatError, match="want 00 or ff"):
        der(text).boolean()


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65535])
def test_a_length_has_one_form(size: int) -> None:
    forms = [bytes((0x80 | n,)) + size.to_bytes(n, "big") for n in (1, 2, 3) if size < 1 << 8 * n]
    shortest = bytes((size,)) if size < 128 else forms.pop(0)
    assert DER(b"\4" + shortest + bytes(size), "thing").content(OCTET_STRING) == bytes(size)
    for other in (*forms, b"\x80"):
        with pytest.raises(FormatError, match="shortest form"):
            DER(b"\4" + other + bytes(size + 2), "thing").content(OCTET_STRING)


def test_a_shortfall_and_a_rest_are_refused() -> None:
    for text in ("", "04", "0402", "0402be", "0482", "048201"):
        with pytest.raises(FormatError, match="bytes left at offset"):
            der(text).content(OCTET_STRING)
    with pytest.raises(FormatError, match="1 bytes left over"):
        der("00").end()
    with pytest.raises(FormatError, match="octet string is 1 bytes, want 2"):
        der("040100").octets(2)


def test_reads_an_element_of_any_tag() -> None:
    cursor = der("8001aa a600")
    assert [cursor.element(), cursor.element()] == [(0x80, b"\xaa"), (0xA6, b"")]
    assert not cursor.more
    for text in ("", "80", "8002aa", "8080", "808101aa"):
        with pytest.raises(FormatError, match="thing: "):
            der(text).element()
