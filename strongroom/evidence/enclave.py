"""An SGX enclave report, as the quoting enclave makes one of itself: 384 bytes in, fields out, and back.

Layout: Intel SDM volume 3D, "REPORT", up to the report data. Numbers are little-endian; reserved bytes must be
zero, so a report has one encoding.
"""

from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

SIZE: Final = 384
DEBUG: Final = 1 << 1  # in the first eight bytes of the attributes

_SUBJECT: Final = "enclave report"
_BYTE_FIELDS: Final = {
    "cpu_svn": 16,
    "isv_ext_prod_id": 16,
    "attributes": 16,
    "mr_enclave": 32,
    "mr_signer": 32,
    "config_id": 64,
    "isv_family_id": 16,
    "report_data": 64,
}
_INT_FIELDS: Final = {"misc_select": 4, "isv_prod_id": 2, "isv_svn": 2, "config_svn": 2}  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """Fields carry the specification's names."""

    cpu_svn: bytes
    misc_select: int
    isv_ext_prod_id: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    def __post_init__(self) -> None:
        for name, size in _BYTE_FIELDS.items():
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_SUBJECT}: {name} is {found} bytes, want {size}")
        for name, size in _INT_FIELDS.items():
            if not 0 <= getattr(self, name) < 1 << 8 * size:
                raise FormatError(f"{_SUBJECT}: {name} does not fit {size} bytes")

    @property
    def debug(self) -> bool:
        return bool(int.from_bytes(self.attributes[:8], "little") & DEBUG)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read exactly 384 bytes, or raise FormatError naming the first broken rule."""
        if len(data) != SIZE:
            raise FormatError(f"{_SUBJECT}: got {len(data)} bytes, want {SIZE}")
        reader = Reader(data, _SUBJECT)

        def after_zeros(n: int, size: int) -> bytes:
            reader.zeros(n)
            return reader.take(size)

        # Keyword arguments are evaluated in the order written: this call is the layout table.
        return cls(
            cpu_svn=reader.take(16),
            misc_select=reader.u32le(),
            isv_ext_prod_id=after_zeros(12, 16),
            attributes=reader.take(16),
            mr_enclave=reader.take(32),
            mr_signer=after_zeros(32, 32),
            config_id=after_zeros(32, 64),
            isv_prod_id=reader.u16le(),
            isv_svn=reader.u16le(),
            config_svn=reader.u16le(),
            isv_family_id=after_zeros(42, 16),
            report_data=reader.take(64),
        )

    def pack(self) -> bytes:
        return b"".join(
            (
                self.cpu_svn,
                self.misc_select.to_bytes(4, "little"),
                bytes(12),
                self.isv_ext_prod_id,
                self.attributes,
                self.mr_enclave,
                bytes(32),
                self.mr_signer,
                bytes(32),
                self.config_id,
                self.isv_prod_id.to_bytes(2, "little"),
                self.isv_svn.to_bytes(2, "little"),
                self.config_svn.to_bytes(2, "little"),
                bytes(42),
                self.isv_family_id,
                self.report_data,
            )
        )
