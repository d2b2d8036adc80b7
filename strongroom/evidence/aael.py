"""The attestation agent's event log (AAEL): what follows the firmware's records in a CCEL, or stands by itself.

    record    register u32, type u32 = 6 (EV_EVENT_TAG), count u32 = 1, algorithm u16, digest, length u32, event
    event     tag u32, length u32, then "<domain> <operation> <content>" in UTF-8

Little endian. The digest is over all of the event, and the register is extended by it. A whole log is the firmware's
records without their filling, these, and eight 0xFF bytes; where there is no CCEL a fixed header takes its place. The
register is a PCR on a vTPM and a measurement register (1..4) in a CCEL.

On TDX our own event log has register 4 (RTMR 3) to itself. Its events are records of the same kind there, whose event
is what our digests are over; so the whole log replays, and every digest in it can be computed anew.

Source: Confidential Containers guest-components, attestation-agent/docs/event-log.md and src/eventlog.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.tcglog import EV_EVENT_TAG, LogKind, TCGLog
from strongroom.evidence.tpm import PCR_COUNT, Hash
from strongroom.wire.canonical import b64u, pack_json
from strongroom.wire.reader import Reader

TAG: Final = 0x4141454C
MAX_CONTENT: Final = 64 * 1024  # bytes
MAX_BYTES: Final = 1 << 20  # of all records
DOMAIN: Final = "strongroom"  # of entries that tell of our own events
GUEST_REGISTER: Final = 4  # RTMR 3 as a CCEL counts
END: Final = b"\xff" * 8
# In place of a CCEL: one EV_NO_ACTION record that announces sha384 and sm3, and whose signature is left empty.
HEADER: Final = (
    bytes(4) + b"\3" + bytes(23) + b"\x25" + bytes(27) + bytes.fromhex("02000000 0c003000 12002000 00")
)
_BANKS: Final = (Hash.SHA256, Hash.SHA384, Hash.SHA512)


@dataclass(frozen=True, slots=True)
class AAELEntry:
    """Who did what to what: two words without spaces, and the rest of one line."""

    domain: str
    operation: str
    content: str

    def __post_init__(self) -> None:
        for word in (self.domain, self.operation):
            if not word or not word.isprintable() or " " in word:
                raise FormatError(f"aael entry: {word[:64]!a} is not one word")
        if not self.content.isprintable() or len(self.content.encode()) > MAX_CONTENT:
            raise FormatError(f"aael entry: content is not one line of at most {MAX_CONTENT} bytes")

    @classmethod
    def parse(cls, event: bytes) -> Self:
        """Read the event of a record; FormatError for another tag, another length or another shape."""
        reader = Reader(event, "aael entry")
        if (tag := reader.u32le()) != TAG:
            raise FormatError(f"aael entry: tag is 0x{tag:08x}, want 0x{TAG:08x}")
        raw = reader.take(reader.u32le())
        reader.end()
        return cls.of_line(raw)

    @classmethod
    def of_line(cls, raw: bytes) -> Self:
        """Read the text of an entry."""
        try:
            domain, operation, content = raw.decode().split(" ", 2)
        except ValueError as error:  # UnicodeDecodeError is one
            raise FormatError("aael entry: want domain, operation and content in UTF-8") from error
        return cls(domain, operation, content)

    @property
    def line(self) -> bytes:
        return f"{self.domain} {self.operation} {self.content}".encode()

    def pack(self) -> bytes:
        return _le(TAG) + _le(len(self.line)) + self.line


@dataclass(frozen=True, slots=True)
class AAELRecord:
    """An entry, and the register and bank that it went into."""

    register: int
    bank: Hash
    entry: AAELEntry

    def __post_init__(self) -> None:
        if not 0 <= self.register < PCR_COUNT or self.bank not in _BANKS:
            raise FormatError(
                f"aael record: register {self.register}, bank {self.bank}, want a PCR and SHA-2"
            )

    @property
    def digest(self) -> bytes:
        return self.bank.digest(self.entry.pack())

    def pack(self) -> bytes:
        return _record(self.register, self.bank, self.entry.pack())


def parse_records(data: bytes) -> tuple[AAELRecord, ...]:
    """Every record of a log without its firmware's part. FormatError also for a digest that is of something else."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"aael: {len(data)} bytes, want at most {MAX_BYTES}")
    reader, records = Reader(data, "aael"), list[AAELRecord]()
    while reader.remaining:
        records.append(_parsed(reader))
    return tuple(records)


def replayed(records: Iterable[AAELRecord], bank: Hash) -> bytes:
    """The value of a register that was zero and then took these records."""
    value = bytes(bank.size)
    for record in records:
        value = bank.digest(value + record.digest)
    return value


def whole_log(ccel: bytes, records: bytes) -> bytes:
    """The log as an agent hands it to a broker; `ccel` is the firmware's area, empty where there is none."""
    firmware = TCGLog.parse(ccel, LogKind.CC).pack() if ccel else HEADER
    return firmware + records + END


def records_of(log: EventLog) -> bytes:
    """Our own event log as records of the register that it has to itself on TDX."""
    return b"".join(_record(GUEST_REGISTER, Hash.SHA384, event.measured) for event in log.events)


def entry_of(event: Event) -> AAELEntry:
    """One of our own events as an entry: its payload where that is an object on one line, else the bytes in one."""
    try:
        if event.payload.startswith(b"{"):
            return AAELEntry(DOMAIN, event.name, event.payload.decode())
    except (FormatError, UnicodeDecodeError):
        pass  # told as bytes, like what never was text
    return AAELEntry(DOMAIN, event.name, pack_json({"base64url": b64u(event.payload)}).decode())


def _record(register: int, bank: Hash, event: bytes) -> bytes:
    head = _le(register) + _le(EV_EVENT_TAG) + _le(1) + int(bank).to_bytes(2, "little")
    return head + bank.digest(event) + _le(len(event)) + event


def _parsed(reader: Reader) -> AAELRecord:
    register, event_type, count, algorithm = reader.u32le(), reader.u32le(), reader.u32le(), reader.u16le()
    if event_type != EV_EVENT_TAG or count != 1:
        raise FormatError(f"aael record: type {event_type}, {count} digests, want {EV_EVENT_TAG} and 1")
    if algorithm not in {*_BANKS}:
        raise FormatError(f"aael record: algorithm is 0x{algorithm:x}, want one of SHA-2")
    bank = Hash(algorithm)
    digest, event = reader.take(bank.size), reader.take(reader.u32le())
    record = AAELRecord(register, bank, AAELEntry.parse(event))
    if record.digest != digest:
        raise FormatError(f"aael record: digest is {digest.hex()}, want that of its event")
    return record


def _le(value: int) -> bytes:
    return value.to_bytes(4, "little")
