"""A measured-boot event log: records in, in order; the firmware's TCG log (old or new), or a CCEL.

Nothing in here is signed. A record's digest counts once a replay gives the quoted registers, and its event data
only where the digest is computed from it: strongroom.verify.tcglog.

Numbers are little-endian. The first record is in the old SHA-1 format and names the digests of all the others;
a log without such a first record is old altogether. A CCEL counts measurement registers (0 MRTD, 1..4 RTMR0..3)
where a TPM's log counts PCRs, and its area may be filled up with 0xFF or zero bytes.

Source: TCG PC Client Platform Firmware Profile 1.06, section 10; UEFI 2.10, section 38 (CCEL).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.evidence.tpm import PCR_COUNT, Hash
from strongroom.wire.reader import Reader

MAX_BYTES: Final = 1 << 20
MAX_RECORDS: Final = 10_000
MAX_ALGORITHMS: Final = 8
EV_NO_ACTION: Final = 0x3  # never extended
EV_SEPARATOR: Final = 0x4
EV_EVENT_TAG: Final = 0x6
EV_EFI_VARIABLE_BOOT: Final = 0x80000002

_SUBJECT: Final = "event log"
_SPEC_ID: Final = b"Spec ID Event03\0"
_NO_REGISTER: Final = 0xFFFFFFFF  # what some firmware gives an event that is never extended
_SM3: Final = 0x12
_FILLS: Final = (b"\xff", b"\0")


class LogKind(StrEnum):
    """What the first number of a record counts."""

    TPM = "tpm"  # PCRs
    CC = "cc"  # measurement registers of a confidential guest

    @property
    def registers(self) -> range:
        """The registers a record can extend. MRTD (0) is closed before the first instruction of a guest."""
        return range(PCR_COUNT) if self is LogKind.TPM else range(1, 5)


def cc_register(pcr: int) -> int:
    """The CC measurement register into which firmware measures what would go to `pcr` (UEFI 2.10, 38.4.1)."""
    if not 0 <= pcr < PCR_COUNT:
        raise FormatError(f"{_SUBJECT}: pcr is {pcr}, want 0..{PCR_COUNT - 1}")
    if pcr == 0:
        return 0
    if pcr in (1, 7):
        return 1
    if pcr <= 6:
        return 2
    return 3 if pcr <= 15 else 4


@dataclass(frozen=True, slots=True)
class Record:
    """One event. `digests` holds (algorithm, digest) in the order of the log; `event` is not yet believed."""

    register: int
    type: int
    digests: tuple[tuple[int, bytes], ...]
    event: bytes
    offset: int  # in the log

    @property
    def is_extended(self) -> bool:
        return self.type != EV_NO_ACTION

    def digest(self, bank: Hash) -> bytes | None:
        return next((digest for algorithm, digest in self.digests if algorithm == bank), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TCGLog:
    """A whole log. `records` includes the first one, which names the algorithms."""

    kind: LogKind
    records: tuple[Record, ...]
    algorithms: tuple[tuple[int, int], ...]  # TPM_ALG_ID and digest size
    is_legacy: bool  # SHA-1 alone, from before the log could name its algorithms
    size: int  # bytes of the log proper, without the filling of its area

    @property
    def banks(self) -> tuple[Hash, ...]:
        """The banks the log can be replayed in."""
        return tuple(Hash(algorithm) for algorithm, _ in self.algorithms if algorithm in {*Hash})

    @classmethod
    def parse(cls, data: bytes, kind: LogKind) -> Self:
        """Read a log to its last byte; a CC area may end in 0xFF or zero bytes. FormatError otherwise."""
        if len(data) > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: {len(data)} bytes, want at most {MAX_BYTES}")
        reader = Reader(data, _SUBJECT)
        first = _old_record(reader, data, kind)
        is_legacy = not (first.type == EV_NO_ACTION and first.event.startswith(_SPEC_ID))
        if is_legacy and kind is LogKind.CC:
            raise FormatError(f"{_SUBJECT}: first record is not a specification id, want one in a cc log")
        algorithms = ((int(Hash.SHA1), Hash.SHA1.size),) if is_legacy else _algorithms(first)
        sizes = dict(algorithms)
        records = [first]
        while reader.remaining and not (
            kind is LogKind.CC and _is_filling(data, len(data) - reader.remaining)
        ):
            if len(records) == MAX_RECORDS:
                raise FormatError(f"{_SUBJECT}: more than {MAX_RECORDS} records")
            records.append(
                _old_record(reader, data, kind) if is_legacy else _record(reader, data, kind, sizes)
            )
        return cls(
            kind=kind,
            records=tuple(records),
            algorithms=algorithms,
            is_legacy=is_legacy,
            size=len(data) - reader.remaining,
        )

    def pack(self) -> bytes:
        """The log proper, without the filling of its area."""
        first, rest = self.records[0], self.records[1:]
        later = map(_pack_old, rest) if self.is_legacy else map(_pack, rest)
        return _pack_old(first) + b"".join(later)


@dataclass(frozen=True, slots=True)
class CCELTable:
    """The ACPI table that says where the log area of a confidential guest is: 56 bytes.

    Source: ACPI 6.5, section 5.2.34.
    """

    cc_type: int  # 1 SEV, 2 TDX
    cc_subtype: int
    log_length: int  # bytes of the area
    log_address: int  # physical

    @classmethod
    def parse(cls, data: bytes) -> Self:
        if len(data) != 56:
            raise FormatError(f"ccel table: got {len(data)} bytes, want 56")
        reader = Reader(data, "ccel table")
        if (signature := reader.take(4)) != b"CCEL" or reader.u32le() != len(data):
            raise FormatError(f"ccel table: signature is {signature!a} or length is wrong, want CCEL and 56")
        if sum(data) & 0xFF:
            raise FormatError(f"ccel table: bytes add up to {sum(data) & 0xFF}, want 0 modulo 256")
        reader.take(28)  # revision, checksum, and who made the table
        cc_type, subtype = reader.u8(), reader.u8()
        reader.zeros(2)
        table = cls(cc_type, subtype, reader.u64le(), reader.u64le())
        reader.end()
        return table


def _old_record(reader: Reader, data: bytes, kind: LogKind) -> Record:
    offset = len(data) - reader.remaining
    register, event_type = reader.u32le(), reader.u32le()
    digest = reader.take(Hash.SHA1.size)
    event = reader.take(reader.u32le())
    return _checked(Record(register, event_type, ((int(Hash.SHA1), digest),), event, offset), kind)


def _record(reader: Reader, data: bytes, kind: LogKind, sizes: dict[int, int]) -> Record:
    offset = len(data) - reader.remaining
    register, event_type, count = reader.u32le(), reader.u32le(), reader.u32le()
    if not 0 < count <= len(sizes):
        raise FormatError(f"{_SUBJECT}: {count} digests at offset {offset}, want 1..{len(sizes)}")
    digests: list[tuple[int, bytes]] = []
    for _ in range(count):
        algorithm = reader.u16le()
        if algorithm not in sizes or any(algorithm == known for known, _ in digests):
            raise FormatError(
                f"{_SUBJECT}: algorithm 0x{algorithm:x} at offset {offset} is unannounced or appears twice"
            )
        digests.append((algorithm, reader.take(sizes[algorithm])))
    event = reader.take(reader.u32le())
    return _checked(Record(register, event_type, tuple(digests), event, offset), kind)


def _checked(record: Record, kind: LogKind) -> Record:
    known = kind.registers if record.is_extended else (*kind.registers, 0, _NO_REGISTER)
    if record.register not in known:
        raise FormatError(
            f"{_SUBJECT}: register is {record.register} at offset {record.offset}, "
            f"want {kind.registers.start}..{kind.registers.stop - 1}"
        )
    return record


def _algorithms(first: Record) -> tuple[tuple[int, int], ...]:
    reader = Reader(first.event, "event log header")
    reader.take(len(_SPEC_ID))
    reader.take(8)  # platform class, version, errata, size of a pointer
    if not 0 < (count := reader.u32le()) <= MAX_ALGORITHMS:
        raise FormatError(f"event log header: {count} algorithms, want 1..{MAX_ALGORITHMS}")
    algorithms = tuple((reader.u16le(), reader.u16le()) for _ in range(count))
    reader.take(reader.u8())  # vendor's own
    reader.end()
    known = {int(bank): bank.size for bank in Hash} | {_SM3: 32}
    for algorithm, size in algorithms:
        if not 0 < size <= 64 or known.get(algorithm, size) != size:
            raise FormatError(f"event log header: algorithm 0x{algorithm:x} has digests of {size} bytes")
    if len(dict(algorithms)) != count:
        raise FormatError("event log header: an algorithm appears twice")
    return algorithms


def _is_filling(data: bytes, offset: int) -> bool:
    # No record starts with 0xFFFFFFFF or is all zero; the rest is looked at once, where one seems to.
    start = data[offset : offset + 12]
    return any(not start.strip(fill) and not data[offset:].strip(fill) for fill in _FILLS)


def _pack(record: Record) -> bytes:
    digests = b"".join(_le(algorithm, 2) + digest for algorithm, digest in record.digests)
    return (
        _le(record.register, 4)
        + _le(record.type, 4)
        + _le(len(record.digests), 4)
        + digests
        + _le(len(record.event), 4)
        + record.event
    )


def _pack_old(record: Record) -> bytes:
    ((_, digest),) = record.digests
    return _le(record.register, 4) + _le(record.type, 4) + digest + _le(len(record.event), 4) + record.event


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")
