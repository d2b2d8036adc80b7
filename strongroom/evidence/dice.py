"""Which firmware a DICE certificate's key was derived for: FWIDs, one SHA-384 digest per layer.

    2.23.133.5.4.1    CompositeDeviceID  SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }
    2.23.133.5.4.1.1  DiceTcbInfo        SEQUENCE { ..., [6] SEQUENCE OF FWID, ... }
    FWID                                 SEQUENCE { OBJECT IDENTIFIER, OCTET STRING }

Source: TCG, "DICE Attestation Architecture" 1.1, 6.1; the first form is its predecessor, kept by Hopper.
"""

from typing import Final

from strongroom.errors import FormatError
from strongroom.wire.der import DER, SEQUENCE

COMPOSITE_DEVICE_ID: Final = "2.23.133.5.4.1"
TCB_INFO: Final = "2.23.133.5.4.1.1"
FWID_SIZE: Final = 48
_SUBJECT: Final = "dice extension"
_MAX_FWIDS: Final = 8
_SHA384: Final = "2.16.840.1.101.3.4.2.2"
_CONTEXT: Final = 0x80
_CONSTRUCTED: Final = 0x20
_FWIDS: Final = 0xA6


def fwids(oid: str, value: bytes) -> tuple[bytes, ...]:
    """The SHA-384 digests in the value of extension `oid`, one of the two above; at least one."""
    outer = DER(value, _SUBJECT)
    inner = outer.inside()
    outer.end()
    if oid == COMPOSITE_DEVICE_ID:
        if inner.integer(most=1) != 1:
            raise FormatError(f"{_SUBJECT}: version is 0, want 1")
        inner.content(SEQUENCE)
        found = [_fwid(inner.inside())]
        inner.end()
        return tuple(found)
    if oid == TCB_INFO:
        return _tcb_info(inner)
    raise FormatError(f"{_SUBJECT}: {oid} is none that holds firmware ids")


def _tcb_info(reader: DER) -> tuple[bytes, ...]:
    found: list[bytes] = []
    last = 0
    while reader.more:
        tag, content = reader.element()
        number = tag & ~_CONSTRUCTED
        if not tag & _CONTEXT or number <= last:  # each field once, and in order
            raise FormatError(f"{_SUBJECT}: tag {tag:#x} is out of order")
        last = number
        if tag == _FWIDS:
            inner = DER(content, _SUBJECT)
            while inner.more:
                found.append(_fwid(inner.inside()))
    if not 0 < len(found) <= _MAX_FWIDS:
        raise FormatError(f"{_SUBJECT}: {len(found)} firmware ids, want 1..{_MAX_FWIDS}")
    return tuple(found)


def _fwid(reader: DER) -> bytes:
    if (algorithm := reader.oid()) != _SHA384:
        raise FormatError(f"{_SUBJECT}: digest algorithm is {algorithm}, want SHA-384")
    digest = reader.octets(FWID_SIZE)
    reader.end()
    return digest
