"""The certificate table beside an SNP report (configfs-tsm `auxblob`, or the extended guest request).

Entries of {GUID 16 bytes, offset u32, length u32}, ended by an all-zero entry; then the DER certificates. The
host supplies the table, so it is a hint: a pin decides whether a certificate in it means anything.

Source: AMD 56421 (GHCB), "SNP Extended Guest Request"; Linux Documentation/ABI/testing/configfs-tsm-report.
"""

from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

MAX_BYTES: Final = 64 * 1024
MAX_ENTRIES: Final = 16
MAX_CERTIFICATE: Final = 16 * 1024  # bytes
_SUBJECT: Final = "snp certificate table"
_ENTRY: Final = 24
_GUIDS: Final = {  # GUIDs travel with their first three parts little-endian
    "vcek": UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes_le,
    "vlek": UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes_le,
    "ask": UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes_le,
    "ark": UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes_le,
    "crl": UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea").bytes_le,
}
_NAMES: Final = {guid: name for name, guid in _GUIDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateTable:
    """DER certificates by role. `ask` holds the ASVK when the leaf is a VLEK; unknown roles are dropped."""

    vcek: bytes | None = None
    vlek: bytes | None = None
    ask: bytes | None = None
    ark: bytes | None = None
    crl: bytes | None = None

    def __post_init__(self) -> None:
        for name in _GUIDS:
            der = getattr(self, name)
            if der is not None and not 0 < len(der) <= MAX_CERTIFICATE:
                raise FormatError(f"{_SUBJECT}: {name} is {len(der)} bytes, want 1..{MAX_CERTIFICATE}")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table; no bytes at all is an empty table, as a host without certificates gives it."""
        if len(data) > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: {len(data)} bytes, want at most {MAX_BYTES}")
        if not data:
            return cls()
        entries = _entries(data)
        found: dict[str, bytes] = {}
        end = _ENTRY * (len(entries) + 1)
        for guid, offset, length in sorted(entries, key=lambda entry: entry[1]):
            if offset < end or length == 0 or offset + length > len(data):
                raise FormatError(
                    f"{_SUBJECT}: {length} bytes at {offset} are empty, overlap, or leave the table"
                )
            end = offset + length
            if name := _NAMES.get(guid):
                if name in found:
                    raise FormatError(f"{_SUBJECT}: {name} appears twice")
                found[name] = data[offset:end]
        return cls(**found)

    def pack(self) -> bytes:
        """The table with its entries in a fixed order and nothing between the certificates."""
        present = [(guid, der) for name, guid in _GUIDS.items() if (der := getattr(self, name)) is not None]
        if not present:
            return b""
        offset = _ENTRY * (len(present) + 1)
        header = bytearray()
        for guid, der in present:
            header += guid + offset.to_bytes(4, "little") + len(der).to_bytes(4, "little")
            offset += len(der)
        return bytes(header) + bytes(_ENTRY) + b"".join(der for _, der in present)


def _entries(data: bytes) -> list[tuple[bytes, int, int]]:
    reader = Reader(data, _SUBJECT)
    entries: list[tuple[bytes, int, int]] = []
    while (entry := (reader.take(16), reader.u32le(), reader.u32le())) != (bytes(16), 0, 0):
        if len(entries) == MAX_ENTRIES:
            raise FormatError(f"{_SUBJECT}: more than {MAX_ENTRIES} entries")
        entries.append(entry)
    return entries
