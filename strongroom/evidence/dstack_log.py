"""The event log of dstack's interface: what was measured into four registers, entry by entry.

    {"imr": 0..3, "event_type": u32, "digest": 96 hex, "event": text, "event_payload": hex}

Registers 0 to 2 are the firmware's. Register 3 is extended at runtime, by dstack with one of two digests:

    1   SHA-384(u32_le(0x08000001) || ":" || name || ":" || payload)
    2   SHA-384(JCS({"name": name, "payload": hex, "type": 134217729})), with members "version" and "preimage"

and by our guest with the digests of its own event log (eventlog.py), whose entries carry an event type of ours:
nobody who recomputes dstack's digests can mistake one for the other. A register is SHA-384(register || digest)
over its entries, from 48 zero bytes.

An entry whose digest is empty is one of dstack's, and the digest is computed: some of its releases write none.
Source: dstack's cc-eventlog; TCG PC Client Platform Firmware Profile for the firmware's event types.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha384
from typing import Final, Literal, Self

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tpm import Hash
from strongroom.wire.canonical import JSON, pack_json, parse_json

EVENT_TYPE: Final = 0x08000001  # dstack's runtime events
OUR_EVENT_TYPE: Final = 0x53520001
RUNTIME: Final = 3  # the register of runtime events
REGISTERS: Final = 4
SIZE: Final = 48  # bytes of a digest, and of a register
MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 4 << 20  # of a whole log
END_OF_BOOT: Final = "system-ready"
REPEATABLE: Final = "init-script-hash"  # the one name that boot may record several times

Version = Literal[1, 2]

_SUBJECT: Final = "dstack event log"
_MEMBERS: Final = frozenset({"imr", "event_type", "digest", "event", "event_payload"})
_ACPI: Final = b"ACPI DATA"  # payload of the three firmware entries that a short log keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEvent:
    """A name and what was recorded under it; the version says how it is hashed."""

    name: str
    payload: bytes
    version: Version = 1

    @property
    def preimage(self) -> bytes:
        """The bytes that are hashed."""
        if self.version == 1:
            return b":".join((EVENT_TYPE.to_bytes(4, "little"), _octets(self.name), self.payload))
        return pack_json({"name": self.name, "payload": self.payload.hex(), "type": EVENT_TYPE})

    @property
    def digest(self) -> bytes:
        return sha384(self.preimage).digest()

    @property
    def entry(self) -> "LogEntry":
        return LogEntry(
            imr=RUNTIME,
            event_type=EVENT_TYPE,
            digest=self.digest,
            event=self.name,
            payload=self.payload,
            version=self.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    imr: int
    event_type: int
    digest: bytes  # 48 bytes, or empty for a runtime event: see `restored`
    event: str
    payload: bytes
    version: Version = 1

    def __post_init__(self) -> None:
        if not 0 <= self.imr < REGISTERS or not 0 <= self.event_type < 1 << 32:
            raise FormatError(
                f"{_SUBJECT}: register {self.imr}, type {self.event_type}: want 0..3 and 32 bits"
            )
        sizes = {0, SIZE} if self.runtime else {SIZE}
        if len(self.digest) not in sizes:
            raise FormatError(f"{_SUBJECT}: a digest is {len(self.digest)} bytes, want {SIZE}")
        if self.version not in {1, 2}:
            raise FormatError(f"{_SUBJECT}: event version is {self.version}, want 1 or 2")

    @property
    def runtime(self) -> RuntimeEvent | None:
        """The event of dstack's runtime that this is, or None."""
        if self.event_type != EVENT_TYPE:
            return None
        return RuntimeEvent(name=self.event, payload=self.payload, version=self.version)

    @property
    def restored(self) -> Self:
        """The same entry with its digest."""
        event = self.runtime
        return self if self.digest or event is None else replace(self, digest=event.digest)

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        """Read one entry. A preimage must be the one its event has; FormatError for any other member."""
        optional = {"version", "preimage"}
        if not isinstance(value, dict) or not _MEMBERS <= value.keys() <= _MEMBERS | optional:
            raise FormatError(f"{at}: want an object of {', '.join(sorted(_MEMBERS))}")
        entry = cls(
            imr=_whole(value["imr"], at),
            event_type=_whole(value["event_type"], at),
            digest=_hex(value["digest"], f"{at}.digest"),
            event=_text(value["event"], f"{at}.event"),
            payload=_hex(value["event_payload"], f"{at}.event_payload"),
            version=_version(value.get("version", 1), at),
        )
        if "preimage" in value:
            event = entry.runtime
            if event is None or _hex(value["preimage"], f"{at}.preimage") != event.preimage:
                raise FormatError(f"{at}.preimage: not the one of this event")
        return entry

    def to_json(self) -> dict[str, JSON]:
        """The entry with its digest, as the interface gives it out."""
        whole, event = self.restored, self.runtime
        value: dict[str, JSON] = {
            "imr": whole.imr,
            "event_type": whole.event_type,
            "digest": whole.digest.hex(),
            "event": whole.event,
            "event_payload": whole.payload.hex(),
        }
        if whole.version != 1 and event is not None:
            value |= {"version": whole.version, "preimage": event.preimage.hex()}
        return value


Log = tuple[LogEntry, ...]


def event_digest(name: str, payload: bytes) -> bytes:
    """48 bytes: the digest of version 1."""
    return RuntimeEvent(name=name, payload=payload).digest


def event_digest_v2(name: str, payload: bytes) -> bytes:
    """48 bytes: the digest of version 2."""
    return RuntimeEvent(name=name, payload=payload, version=2).digest


def view(log: EventLog) -> Log:
    """Our own log as entries of register 3; replaying them gives the log's head."""
    return tuple(
        LogEntry(
            imr=RUNTIME,
            event_type=OUR_EVENT_TYPE,
            digest=event.digest,
            event=event.name,
            payload=event.payload,
        )
        for event in log.events
    )


def firmware(log: TCGLog) -> Log:
    """What firmware measured before us, of a CC event log: digests alone, as the payloads are long and known.

    FormatError for a log without SHA-384, or of a TPM.
    """
    if log.kind is not LogKind.CC:
        raise FormatError(
            f"{_SUBJECT}: firmware's log counts PCRs, want the registers of a confidential guest"
        )
    entries = []
    for record in log.records:
        if not record.is_extended:
            continue
        if (digest := record.digest(Hash.SHA384)) is None:
            raise FormatError(f"{_SUBJECT}: firmware's event at {record.offset} has no SHA-384 digest")
        payload = _ACPI if record.event == _ACPI else b""
        imr = record.register - 1  # register 0 is MRTD, and closed
        entries.append(LogEntry(imr=imr, event_type=record.type, digest=digest, event="", payload=payload))
    return tuple(entries)


def replay(log: Iterable[LogEntry], imr: int) -> bytes:
    """48 bytes: the register these entries lead to."""
    register = bytes(SIZE)
    for entry in log:
        if entry.imr == imr:
            register = sha384(register + entry.restored.digest).digest()
    return register


def to_json(log: Iterable[LogEntry]) -> list[JSON]:
    return [entry.to_json() for entry in log]


def pack(log: Iterable[LogEntry]) -> str:
    """The log as the JSON text that a quote comes with, ASCII, every digest filled in."""
    return json.dumps(to_json(log), separators=(",", ":"))


def parse(text: str) -> Log:
    """The entries of such a text. Raises FormatError; that digests are right is for `require_genuine`."""
    return from_json(parse_json(_octets(text), _SUBJECT, max_bytes=MAX_BYTES, max_depth=2))


def from_json(value: JSON) -> Log:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise FormatError(f"{_SUBJECT}: want a list of at most {MAX_ENTRIES} entries")
    return tuple(LogEntry.from_json(item, f"{_SUBJECT}[{n}]") for n, item in enumerate(value))


def stripped(log: Iterable[LogEntry]) -> Log:
    """What a certificate keeps: runtime entries without the digests that can be computed, and ACPI's digests."""
    kept = []
    for entry in log:
        if entry.runtime is not None and entry.imr == RUNTIME:
            kept.append(replace(entry, digest=b""))
        elif entry.imr == RUNTIME or (entry.imr == 0 and entry.payload == _ACPI):
            kept.append(entry)
    return tuple(kept)


def require_genuine(log: Iterable[LogEntry], registers: Mapping[int, bytes]) -> None:
    """Raise VerifyError unless the log leads to these registers and says what was hashed into the runtime one.

    Of a stripped log, only register 3 can be checked.
    """
    log = tuple(log)
    for entry in log:
        event = entry.runtime
        if entry.imr != RUNTIME and event is not None:
            raise VerifyError(f"{_SUBJECT}: runtime event {event.name[:64]!a} is in register {entry.imr}")
        if event is not None and entry.restored.digest != event.digest:
            raise VerifyError(f"{_SUBJECT}: digest of {event.name[:64]!a} is not the one of name and payload")
    for imr, want in registers.items():
        if (found := replay(log, imr)) != want:
            raise VerifyError(f"{_SUBJECT}: register {imr} replays to {found.hex()}, want {want.hex()}")


def boot_claims(log: Iterable[LogEntry]) -> dict[str, bytes]:
    """What boot recorded, by name: dstack's runtime events before the one that ends it.

    Applications may append later, under any name: nothing from there is taken. Raises FormatError when boot did
    not end, or a name repeats (but the one that may, which is left out).
    """
    claims: dict[str, bytes] = {}
    for entry in log:
        if entry.imr != RUNTIME or (event := entry.runtime) is None or event.name == REPEATABLE:
            continue
        if event.name == END_OF_BOOT:
            return claims
        if event.name in claims:
            raise FormatError(f"{_SUBJECT}: {event.name[:64]!a} appears twice")
        claims[event.name] = event.payload
    raise FormatError(f"{_SUBJECT}: no event {END_OF_BOOT}, want it after boot")


def _octets(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{_SUBJECT}: text holds a lone surrogate, want unicode") from error


def _version(value: JSON, at: str) -> Version:
    match value:
        case True | False:
            pass
        case 1:
            return 1
        case 2:
            return 2
    raise FormatError(f"{at}.version: got {ascii(value)[:40]}, want 1 or 2")


def _whole(value: JSON, at: str) -> int:
    if type(value) is not int:  # bool is an int: type() on purpose
        raise FormatError(f"{at}: got {ascii(value)[:40]}, want a whole number")
    return value


def _text(value: JSON, at: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{at}: got {type(value).__name__}, want text")
    return value


def _hex(value: JSON, at: str) -> bytes:
    text = _text(value, at)
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError(f"{at}: not hex") from error
    if raw.hex() != text:  # upper case, or blanks between the digits
        raise FormatError(f"{at}: not lowercase hex")
    return raw
