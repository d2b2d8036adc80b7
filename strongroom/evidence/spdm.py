"""What an NVIDIA GPU or NVSwitch signs: an SPDM 1.1 GET_MEASUREMENTS request and its response, end to end.

The request carries the verifier's nonce; the response carries the measurement blocks, a nonce of the device's
own, and opaque data (type, length, value) with versions and identities. All numbers are little-endian, the
signature (r then s) is big-endian. Everything before the signature is signed.

Source: DMTF DSP0274 1.1, 10.11 (GET_MEASUREMENTS, MEASUREMENTS); opaque types as NVIDIA's verifiers name them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, Self

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

MAX_BYTES: Final = 0x2000  # the buffer NVML reads a report into
NONCE_SIZE: Final = 32
SIGNATURE_SIZE: Final = 96
PDI_SIZE: Final = 8
MAX_TEXT: Final = 32  # bytes of a version or part number, its padding included
MAX_VALUE: Final = 64  # bytes of one measurement

_SUBJECT: Final = "spdm report"
_REQUEST: Final = bytes.fromhex("11e001ff")  # version 1.1, GET_MEASUREMENTS, signed, every block
_RESPONSE: Final = bytes.fromhex("11600000")  # version 1.1, MEASUREMENTS, slot 0
_DMTF: Final = 1  # the measurement specification of every block
_ENABLED: Final = 0xAA
_DISABLED: Final = 0x55
_GPU_SLOTS: Final = 8  # a switch names its GPUs first, then the GPU at the end of each of its 64 ports
_TEXT_MARKS: Final = frozenset("._-")


class Opaque(IntEnum):
    """Types of opaque data that are read here. Others are kept as they are, and skipped."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    BOARD_ID = 14
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    GPU_PDI = 26
    OPAQUE_DATA_VERSION = 34
    FEATURE_FLAG = 36


@dataclass(frozen=True, slots=True)
class Measurement:
    """One block: its index (from 1), the DMTF type of its value, and the value, a SHA-384 digest in practice."""

    index: int
    type: int
    value: bytes


@dataclass(frozen=True, slots=True)
class OpaqueField:
    type: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SPDMReport:
    """Request and response. Blocks are numbered 1..n without a gap; no opaque type appears twice."""

    nonce: bytes  # of the request: the one that shows freshness
    slot: int
    measurements: tuple[Measurement, ...]
    responder_nonce: bytes  # of the device's own making: shows nothing
    opaque: tuple[OpaqueField, ...]
    signature: bytes

    def __post_init__(self) -> None:
        for name, size in (
            ("nonce", NONCE_SIZE),
            ("responder_nonce", NONCE_SIZE),
            ("signature", SIGNATURE_SIZE),
        ):
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_SUBJECT}: {name} is {found} bytes, want {size}")
        if not 0 <= self.slot <= 0xFF:
            raise FormatError(f"{_SUBJECT}: slot is {self.slot}, want 0..255")
        if not 0 < len(self.measurements) <= 0xFF:
            raise FormatError(f"{_SUBJECT}: {len(self.measurements)} blocks, want 1..255")
        for want, block in enumerate(self.measurements, 1):
            if block.index != want:
                raise FormatError(f"{_SUBJECT}: block {want} has index {block.index}, want {want}")
            if not 0 <= block.type <= 0xFF or not 0 < len(block.value) <= MAX_VALUE:
                raise FormatError(f"{_SUBJECT}: block {want} holds no value of 1..{MAX_VALUE} bytes")
        types = [field.type for field in self.opaque]
        if len(set(types)) != len(types):
            raise FormatError(f"{_SUBJECT}: an opaque type appears twice")
        if any(not 0 <= field.type <= 0xFFFF or len(field.value) > 0xFFFF for field in self.opaque):
            raise FormatError(f"{_SUBJECT}: an opaque field does not fit its header")

    @classmethod
    def parse(cls, data: bytes, *, trailing: Literal["none", "zeros"] = "none") -> Self:
        """Read a whole report, or raise FormatError naming the first broken rule.

        Some collectors hand over a NUL behind the signature; "zeros" allows that, and nothing else.
        """
        if len(data) > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: {len(data)} bytes, want at most {MAX_BYTES}")
        reader = Reader(data, _SUBJECT)
        _expect(reader, _REQUEST, "request header")
        nonce, slot = reader.take(NONCE_SIZE), reader.u8()
        _expect(reader, _RESPONSE, "response header")
        count = reader.u8()
        record = Reader(
            reader.take(int.from_bytes(reader.take(3), "little")), f"{_SUBJECT}: measurement record"
        )
        report = cls(
            nonce=nonce,
            slot=slot,
            measurements=tuple(_block(record) for _ in range(count)),
            responder_nonce=_after(record, reader).take(NONCE_SIZE),
            opaque=tuple(_fields(reader.take(reader.u16le()))),
            signature=reader.take(SIGNATURE_SIZE),
        )
        if trailing == "zeros":
            reader.zeros(reader.remaining)
        reader.end()
        return report

    def pack(self) -> bytes:
        return self.signed_part + self.signature

    @property
    def signed_part(self) -> bytes:
        """Everything before the signature, the request included."""
        record = b"".join(_pack_block(block) for block in self.measurements)
        opaque = b"".join(_le(f.type, 2) + _le(len(f.value), 2) + f.value for f in self.opaque)
        return b"".join(
            (
                _REQUEST,
                self.nonce,
                _le(self.slot, 1),
                _RESPONSE,
                _le(len(self.measurements), 1),
                _le(len(record), 3),
                record,
                self.responder_nonce,
                _le(len(opaque), 2),
                opaque,
            )
        )

    @property
    def driver_version(self) -> str | None:
        return self._text(Opaque.DRIVER_VERSION)

    @property
    def vbios_version(self) -> str | None:
        """Such as "96.00.5E.00.01". A GPU writes it as eight bytes, a switch as text."""
        value = self.field(Opaque.VBIOS_VERSION)
        if value is None or len(value) != 8:
            return self._text(Opaque.VBIOS_VERSION)
        if any(value[5:]):
            raise FormatError(f"{_SUBJECT}: vbios version {value.hex()} ends in no zeros")
        return ".".join(f"{byte:02X}" for byte in (*value[3::-1], value[4]))

    @property
    def project(self) -> str | None:
        return self._text(Opaque.PROJECT)

    @property
    def project_sku(self) -> str | None:
        return self._text(Opaque.PROJECT_SKU)

    @property
    def chip_sku(self) -> str | None:
        return self._text(Opaque.CHIP_SKU)

    @property
    def board_id(self) -> int | None:
        return self._number(Opaque.BOARD_ID, 4)

    @property
    def nvdec0_enabled(self) -> bool | None:
        return self._status(Opaque.NVDEC0_STATUS)

    @property
    def protected_pcie(self) -> bool | None:
        return self._status(Opaque.PROTECTED_PCIE_STATUS)

    @property
    def feature_flag(self) -> int | None:
        """0 one GPU passed through, 1 several, 2 protected PCIe."""
        return self._number(Opaque.FEATURE_FLAG, 2)

    @property
    def opaque_data_version(self) -> int | None:
        return self._number(Opaque.OPAQUE_DATA_VERSION, 2)

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the firmware the attestation key was derived for; old firmware does not say."""
        return self._sized(Opaque.FWID, 48)

    @property
    def switch_pdis(self) -> tuple[bytes, ...]:
        """On a GPU the switch at the end of each link, zero where there is none; on a switch its own identity."""
        value = self.field(Opaque.SWITCH_PDI) or b""
        if len(value) % PDI_SIZE:
            raise FormatError(f"{_SUBJECT}: switch identities are {len(value)} bytes, want a multiple of 8")
        return tuple(value[at : at + PDI_SIZE] for at in range(0, len(value), PDI_SIZE))

    @property
    def gpu_pdis(self) -> tuple[bytes, ...]:
        """The eight GPUs a switch sees, zero where there is none. Behind them stands the GPU of each port."""
        value = self._sized(Opaque.GPU_PDI, _GPU_SLOTS * PDI_SIZE + 64)
        if value is None:
            return ()
        return tuple(value[at : at + PDI_SIZE] for at in range(0, _GPU_SLOTS * PDI_SIZE, PDI_SIZE))

    def field(self, type: Opaque) -> bytes | None:
        """The raw value of an opaque type."""
        return next((field.value for field in self.opaque if field.type == type), None)

    def _sized(self, type: Opaque, size: int) -> bytes | None:
        value = self.field(type)
        if value is not None and len(value) != size:
            raise FormatError(f"{_SUBJECT}: {_name(type)} is {len(value)} bytes, want {size}")
        return value

    def _number(self, type: Opaque, size: int) -> int | None:
        value = self._sized(type, size)
        return None if value is None else int.from_bytes(value, "little")

    def _status(self, type: Opaque) -> bool | None:
        value = self._number(type, 1)
        if value not in (None, _ENABLED, _DISABLED):
            raise FormatError(f"{_SUBJECT}: {_name(type)} is {value:#x}, want 0xaa or 0x55")
        return None if value is None else value == _ENABLED

    def _text(self, type: Opaque) -> str | None:
        # These become part of a file's name and a URL, so they are held to what such names are made of.
        value = self.field(type)
        if value is None:
            return None
        text = value.rstrip(b"\0").decode("ascii", "replace")
        if len(value) > MAX_TEXT or not all(c.isascii() and (c.isalnum() or c in _TEXT_MARKS) for c in text):
            raise FormatError(f"{_SUBJECT}: {_name(type)} is {value[:MAX_TEXT].hex()}, want plain text")
        return text


def _expect(reader: Reader, want: bytes, what: str) -> None:
    if (found := reader.take(len(want))) != want:
        raise FormatError(f"{_SUBJECT}: {what} is {found.hex()}, want {want.hex()}")


def _after(record: Reader, reader: Reader) -> Reader:
    record.end()
    return reader


def _block(reader: Reader) -> Measurement:
    index, specification, size = reader.u8(), reader.u8(), reader.u16le()
    if specification != _DMTF:
        raise FormatError(f"{_SUBJECT}: block {index} has specification {specification}, want 1 (DMTF)")
    value_type, length = reader.u8(), reader.u16le()
    if size != length + 3:
        raise FormatError(f"{_SUBJECT}: block {index} is {size} bytes with a value of {length}, want 3 more")
    return Measurement(index, value_type, reader.take(length))


def _pack_block(block: Measurement) -> bytes:
    length = len(block.value)
    return (
        _le(block.index, 1)
        + _le(_DMTF, 1)
        + _le(length + 3, 2)
        + _le(block.type, 1)
        + _le(length, 2)
        + block.value
    )


def _fields(data: bytes) -> Iterator[OpaqueField]:
    reader = Reader(data, f"{_SUBJECT}: opaque data")
    while reader.remaining:
        yield OpaqueField(reader.u16le(), reader.take(reader.u16le()))


def _name(type: Opaque) -> str:
    return type.name.lower().replace("_", " ")


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")
