"""Mirrors strongroom/evidence/dstack_binding.py."""

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.binding import is_reserved
from strongroom.evidence.dstack_binding import Tag, for_key, padded, tagged

SECP256K1 = bytes.fromhex("03ab7f25d56455d300a1c1f77f57f6d16193e89cdd9edc5c5e2994b446b1f3373d")
ED25519 = bytes.fromhex("e4f6eb7b50267f586ba765766db7ca9487f1a506f6a49026ae09a1c605681bdb")


def test_the_tag_of_a_certificate() -> None:
    assert tagged(Tag.CERTIFICATE, b"abc").hex() == (
        "2104d977fd953d211a78cf19b1dd93985fdab7945221d9bc9844d2d07f37b0e4"
        "99b419e8c9ad8c170a1a04512c14223202db82acac5257d70a900e4b18d13b10"
    )
    assert len({tagged(tag, b"abc") for tag in Tag}) == 3


def test_report_data_that_names_a_key() -> None:
    assert for_key(ED25519) == b"dip1::ed25519-pk:5Pbre1Amf1hrp2V2bbfKlIfxpQb2pJAmrgmhxgVoG9s" + bytes(4)
    assert for_key(SECP256K1) == b"dip1::secp256k1c-pk:A6t_JdVkVdMAocH3f1f20WGT6JzdntxcXimUtEax8zc9"
    with pytest.raises(FormatError, match="31 bytes"):
        for_key(bytes(31))


def test_none_of_them_has_a_shape_of_ours() -> None:
    assert not any(map(is_reserved, (for_key(ED25519), for_key(SECP256K1), tagged(Tag.APPLICATION, b""))))


def test_padding() -> None:
    assert padded(b"\x12\x34") == b"\x12\x34" + bytes(62)
    assert padded(bytes(64)) == bytes(64)
    with pytest.raises(FormatError, match="report data is too long"):
        padded(bytes(65))
