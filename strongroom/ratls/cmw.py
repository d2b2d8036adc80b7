"""Conceptual message wrappers (RFC 9999): a bundle with its media type, as one record in JSON or in CBOR.

    ["application/vnd.strongroom.evidence+json", base64url of the canonical JSON, 4]
    ["application/vnd.strongroom.evidence+cbor", bytes of the canonical CBOR, 4]        a third smaller

Both hold the same value. What is written is JSON unless asked otherwise; both are read.
"""

from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.bundle import MAX_PACKED, Bundle
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.cbor import CBOR, pack_cbor, parse_cbor

MEDIA_TYPE: Final = "application/vnd.strongroom.evidence+json"
MEDIA_TYPE_CBOR: Final = "application/vnd.strongroom.evidence+cbor"
EVIDENCE: Final = 4  # indicator bit 2
MAX_BYTES: Final = MAX_PACKED * 3 // 2  # base64 of the longest bundle
_SUBJECT: Final = "evidence extension"
_CBOR_RECORD: Final = b"\x83"  # an array of three


def pack_cmw(bundle: Bundle, *, cbor: bool = False) -> bytes:
    """The record around a bundle, in its canonical encoding."""
    if cbor:
        return pack_cbor([MEDIA_TYPE_CBOR, bundle.pack_cbor(), EVIDENCE])
    return pack_json([MEDIA_TYPE, b64u(bundle.pack()), EVIDENCE])


def parse_cmw(data: bytes) -> Bundle:
    """The bundle inside a record. Raises FormatError for any other media type or indicator."""
    if data[:1] == _CBOR_RECORD:
        packed = _value(parse_cbor(data, _SUBJECT, max_bytes=MAX_BYTES, max_depth=2), MEDIA_TYPE_CBOR)
        if not isinstance(packed, bytes):
            raise FormatError(f"{_SUBJECT}: value is not bytes")
        return Bundle.parse_cbor(packed)
    text = _value(parse_json(data, _SUBJECT, max_bytes=MAX_BYTES, max_depth=2), MEDIA_TYPE)
    if not isinstance(text, str):
        raise FormatError(f"{_SUBJECT}: value is not base64url text")
    return Bundle.parse(unb64u(text, _SUBJECT))


def _value(record: "JSON | CBOR", media_type: str) -> object:
    match record:
        case [found, value, indicator]:
            pass
        case _:
            raise FormatError(f"{_SUBJECT}: want a CMW record of three members")
    if found != media_type:
        raise FormatError(f"{_SUBJECT}: media type is {str(found)[:80]!r}, want {media_type!r}")
    if indicator != EVIDENCE or isinstance(indicator, bool):
        raise FormatError(f"{_SUBJECT}: indicator is not {EVIDENCE}")
    return value
