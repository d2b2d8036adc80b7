"""Certificates out of PEM text (RFC 7468), with nothing before, between or after them; and into it."""

import re
from collections.abc import Iterable
from typing import Final

from strongroom.errors import FormatError
from strongroom.wire.canonical import b64, unb64

MAX_CERTIFICATES: Final = 8
MAX_BYTES: Final = 64 * 1024
_LINE: Final = 64  # characters
_BLOCK: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n){1,1024})-----END CERTIFICATE-----(?:\r?\n|\Z)"
)


def certificates(data: bytes, subject: str, *, most: int = MAX_CERTIFICATES) -> tuple[bytes, ...]:
    """The DER of every certificate in order; FormatError for none, for more than `most`, or for other text."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{subject}: {len(data)} bytes, want at most {MAX_BYTES}")
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if not (block := _BLOCK.match(data, at)):
            raise FormatError(f"{subject}: byte {at} does not start a certificate in PEM")
        if len(found) == most:
            raise FormatError(f"{subject}: more than {most} certificates")
        found.append(unb64(b"".join(block[1].split()).decode(), subject))
        at = block.end()
    if not found:
        raise FormatError(f"{subject}: no certificate, want 1..{most}")
    return tuple(found)


def pem(chain: Iterable[bytes]) -> bytes:
    """The PEM text of DER certificates, in the order given."""
    return b"".join(map(_block, chain))


def _block(der: bytes) -> bytes:
    text = b64(der)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", "")).encode()
