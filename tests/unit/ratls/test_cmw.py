"""Mirrors strongroom/ratls/cmw.py."""

from typing import Any

import pytest

from strongroom.errors import FormatError
from strongroom.ratls.cmw import EVIDENCE, MEDIA_TYPE, MEDIA_TYPE_CBOR, pack_cmw, parse_cmw
from strongroom.wire.canonical import b64u, pack_json
from strongroom.wire.cbor import pack_cbor
from tests.fakes.exchange import certificate_bundle, tls_key
from tests.fakes.silicon import silicon

BUNDLE = certificate_bundle(silicon(), tls_key())


def test_both_encodings_hold_the_same_bundle() -> None:
    assert parse_cmw(pack_cmw(BUNDLE)) == parse_cmw(pack_cmw(BUNDLE, cbor=True)) == BUNDLE
    assert len(pack_cmw(BUNDLE, cbor=True)) < len(pack_cmw(BUNDLE)) * 2 // 3


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (["application/other", b64u(BUNDLE.pack()), EVIDENCE], "media type"),
        ([MEDIA_TYPE_CBOR, b64u(BUNDLE.pack()), EVIDENCE], "media type"),
        ([MEDIA_TYPE, b64u(BUNDLE.pack()), 2], "indicator"),
        ([MEDIA_TYPE, b64u(BUNDLE.pack()), True], "indicator"),
        ([MEDIA_TYPE, b64u(BUNDLE.pack())], "three members"),
        ([MEDIA_TYPE, b64u(BUNDLE.pack()), EVIDENCE, 1], "three members"),
        ([MEDIA_TYPE, 7, EVIDENCE], "base64url"),
        ([MEDIA_TYPE, b64u(BUNDLE.pack()) + "=", EVIDENCE], "base64url"),
        ([MEDIA_TYPE, b64u(BUNDLE.pack_cbor()), EVIDENCE], "evidence bundle"),
        ({"type": MEDIA_TYPE}, "three members"),
    ],
)
def test_other_json_records_are_refused(record: Any, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse_cmw(pack_json(record))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ([MEDIA_TYPE, BUNDLE.pack_cbor(), EVIDENCE], "media type"),
        ([MEDIA_TYPE_CBOR, BUNDLE.pack_cbor(), 2], "indicator"),
        ([MEDIA_TYPE_CBOR, b64u(BUNDLE.pack_cbor()), EVIDENCE], "value is not bytes"),
        ([MEDIA_TYPE_CBOR, BUNDLE.pack(), EVIDENCE], "evidence bundle: not CBOR|not in canonical form"),
        ([MEDIA_TYPE_CBOR, BUNDLE.pack_cbor()], "^evidence extension: "),
        ({"type": MEDIA_TYPE_CBOR}, "^evidence extension: "),
    ],
)
def test_other_cbor_records_are_refused(record: Any, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse_cmw(pack_cbor(record))


@pytest.mark.parametrize("cbor", [False, True])
def test_a_cut_record_is_refused_at_every_length(cbor: bool) -> None:
    whole = pack_cmw(BUNDLE, cbor=cbor)
    for length in range(0, len(whole), 97):
        with pytest.raises(FormatError):
            parse_cmw(whole[:length])
