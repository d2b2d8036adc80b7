"""The certificate chain beside an NVIDIA report: PEM as NVML hands it over, or DER one behind the other.

The machine supplies the chain, so it is a hint: a pin decides whether its last certificate is a root.
"""

from collections.abc import Iterator
from typing import Final

from strongroom.errors import FormatError
from strongroom.wire.der import SEQUENCE
from strongroom.wire.pem import certificates
from strongroom.wire.reader import Reader

MAX_BYTES: Final = 16 * 1024
MAX_CERTIFICATES: Final = 8
_SUBJECT: Final = "nvidia certificates"
_PADDING: Final = b"\0\r\n"  # a C string brings its NUL along, some collectors an empty line


def parse_chain(data: bytes) -> tuple[bytes, ...]:
    """The DER certificates in the order given, leaf first, or FormatError."""
    if not 0 < len(data) <= MAX_BYTES:
        raise FormatError(f"{_SUBJECT}: {len(data)} bytes, want 1..{MAX_BYTES}")
    if data.startswith(b"-"):
        return certificates(data.rstrip(_PADDING) + b"\n", _SUBJECT, most=MAX_CERTIFICATES)
    chain: list[bytes] = []
    for der in _certificates(data):
        if len(chain) == MAX_CERTIFICATES:
            raise FormatError(f"{_SUBJECT}: more than {MAX_CERTIFICATES} certificates")
        chain.append(der)
    return tuple(chain)


def _certificates(data: bytes) -> Iterator[bytes]:
    reader = Reader(data, _SUBJECT)
    while reader.remaining:
        header = reader.take(2)
        if header[0] != SEQUENCE or header[1] not in (0x81, 0x82):  # no certificate is below 128 bytes
            raise FormatError(f"{_SUBJECT}: neither PEM nor DER")
        length = reader.take(header[1] & 0x0F)
        yield header + length + reader.take(int.from_bytes(length, "big"))
