"""Mirrors strongroom/evidence/dstack_envelope.py: read back whole, and never taken for a quote."""

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.dstack_attestation import Attestation
from strongroom.evidence.dstack_envelope import Envelope, body, pack_bundle
from strongroom.evidence.tdx import TDXQuote
from strongroom.wire.messagepack import parse_messagepack
from tests.fakes.intel import Platform

BODY = body(measurement=b"\1" * 48, committed=b"\2" * 32, head=b"\3" * 48, report_data=b"\4" * 64)
ENVELOPE = Envelope(body=BODY, attestation=b"evidence")
PACKED = ENVELOPE.pack()


def test_readers_find_what_they_look_for_where_they_look() -> None:
    assert PACKED[184:232] == b"\1" * 48
    assert PACKED[232:280] == b"\2" * 32 + bytes(16)
    assert PACKED[376:520] == bytes(144)
    assert (PACKED[520:568], PACKED[568:632]) == (b"\3" * 48, b"\4" * 64)
    assert Envelope.parse(PACKED) == ENVELOPE


@pytest.mark.guarantee("G18")
def test_neither_passes_for_the_other() -> None:
    with pytest.raises(FormatError):
        TDXQuote.parse(PACKED)
    with pytest.raises(FormatError, match="another header"):
        Envelope.parse(Platform().quote().pack())


@pytest.mark.parametrize("size", range(0, len(PACKED), 7))
def test_cut_short_it_is_none(size: int) -> None:
    with pytest.raises(FormatError):
        Envelope.parse(PACKED[:size])


def test_nothing_may_follow() -> None:
    with pytest.raises(FormatError):
        Envelope.parse(PACKED + b"\0")


@pytest.mark.parametrize("bit", range(48 * 8))
def test_every_bit_of_the_header_counts(bit: int) -> None:
    raw = bytearray(PACKED)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FormatError):
        Envelope.parse(bytes(raw))


def test_a_bundle_in_dstacks_clothes_is_no_attestation_of_dstacks() -> None:
    packed = pack_bundle(b"bundle", bytes(64))
    value = parse_messagepack(packed, "attestation", max_bytes=4096, max_depth=8)
    assert isinstance(value, dict) and value["platform"] == {
        "kind": "strongroom",
        "data": {"bundle": b"bundle"},
    }
    with pytest.raises(FormatError):
        Attestation.parse(packed)
