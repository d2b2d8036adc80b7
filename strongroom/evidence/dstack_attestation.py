"""Evidence as dstack's interface hands it out: one value, with two encodings told apart by the first byte.

    0      00, then SCALE: variant u8, its fields; runtime events; report_data; config
    1      MessagePack map {"version": 1, "platform": {kind, data}, "stack": {kind, data}}

    kind       variant  fields
    tdx              0  quote, event_log
    sev-snp          3  report, cert_chain, mr_config (the launch document)
    nitro            2  one document, as aws-nitro-tpm (4) has: read, and not understood

Where 1 holds bytes, some are a list of numbers and some are bytes; both are read, and each is written as dstack
writes it. Nothing here is verified, and report_data beside the report is a claim like the rest.

Source: dstack's dstack-attest. gcp-tdx (1) is not read.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self, TypeAlias

from strongroom.errors import FormatError
from strongroom.evidence.dstack_log import MAX_ENTRIES, Log, LogEntry, RuntimeEvent, stripped
from strongroom.wire.canonical import JSON
from strongroom.wire.messagepack import MessagePack, pack_messagepack, parse_messagepack
from strongroom.wire.scale import Scale, pack_items, pack_octets

MAX_BYTES: Final = 10 << 20
REPORT_DATA: Final = 64  # bytes
MAX_CERTIFICATES: Final = 16
_SUBJECT: Final = "dstack attestation"
_SCALE: Final = 0x00
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})  # how MessagePack starts a map


@dataclass(frozen=True, slots=True, kw_only=True)
class TDX:
    kind: ClassVar[str] = "tdx"
    variant: ClassVar[int] = 0

    quote: bytes
    event_log: Log


@dataclass(frozen=True, slots=True, kw_only=True)
class SNP:
    kind: ClassVar[str] = "sev-snp"
    variant: ClassVar[int] = 3

    report: bytes
    cert_chain: tuple[bytes, ...] = ()  # PEM or DER, as the host gave them
    mr_config: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroEnclave:
    kind: ClassVar[str] = "nitro-enclave"
    variant: ClassVar[int] = 2
    member: ClassVar[str] = "nsm_quote"

    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroTPM:
    kind: ClassVar[str] = "aws-nitro-tpm"
    variant: ClassVar[int] = 4
    member: ClassVar[str] = "attestation_doc"

    document: bytes


Platform: TypeAlias = TDX | SNP | NitroEnclave | NitroTPM


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    platform: Platform
    report_data: bytes
    runtime_events: tuple[RuntimeEvent, ...] = ()
    config: str = ""  # JSON of the machine's shape
    payload: str | None = None  # of a pod: report_data is made from it; only encoding 1 has it

    def __post_init__(self) -> None:
        if len(self.report_data) != REPORT_DATA:
            raise FormatError(f"{_SUBJECT}: report data is {len(self.report_data)} bytes, want {REPORT_DATA}")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read either encoding; FormatError for any other first byte, or anything left over."""
        if len(data) > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: {len(data)} bytes, want at most {MAX_BYTES}")
        if data[:1] == bytes((_SCALE,)):
            return cls._parse_scale(data)
        if data and data[0] in _MAPS:
            return cls._parse_messagepack(data)
        raise FormatError(f"{_SUBJECT}: starts with {data[:1].hex() or 'nothing'}, want 00 or a map")

    def pack_v0(self) -> bytes:
        """Encoding 0. FormatError for what it cannot hold: a pod's payload, events of version 2."""
        if self.payload is not None:
            raise FormatError(f"{_SUBJECT}: encoding 0 has no payload")
        events = [
            _text(event.name) + pack_octets(event.payload) for event in map(_first, self.runtime_events)
        ]
        return b"".join(
            (
                bytes((_SCALE, self.platform.variant)),
                _pack_platform(self.platform),
                pack_items(events),
                self.report_data,
                _text(self.config),
            )
        )

    def pack_v1(self) -> bytes:
        """Encoding 1."""
        stack: dict[str, MessagePack] = {
            "report_data": list(self.report_data),
            "runtime_events": [_event_map(event) for event in self.runtime_events],
            "config": self.config,
        }
        if self.payload is not None:
            stack["report_data_payload"] = self.payload
        return pack_messagepack(
            {
                "version": 1,
                "platform": {"kind": self.platform.kind, "data": _platform_map(self.platform)},
                "stack": {"kind": "dstack" if self.payload is None else "dstack-pod", "data": stack},
            }
        )

    @property
    def stripped(self) -> Self:
        """The same without what a certificate can do without."""
        if not isinstance(self.platform, TDX):
            return self
        return replace(self, platform=replace(self.platform, event_log=stripped(self.platform.event_log)))

    @classmethod
    def _parse_scale(cls, data: bytes) -> Self:
        reader = Scale(data, _SUBJECT)
        reader.u8()
        attestation = cls(
            platform=_scale_platform(reader),
            runtime_events=tuple(
                reader.items(
                    lambda: RuntimeEvent(name=reader.text(), payload=reader.octets()), most=MAX_ENTRIES
                )
            ),
            report_data=reader.take(REPORT_DATA),
            config=reader.text(),
        )
        reader.end()
        return attestation

    @classmethod
    def _parse_messagepack(cls, data: bytes) -> Self:
        value = parse_messagepack(data, _SUBJECT, max_bytes=MAX_BYTES, max_depth=8)
        whole = _members(value, "", {"version", "platform", "stack"})
        if whole["version"] != 1 or whole["version"] is True:
            raise FormatError(f"{_SUBJECT}: version is {ascii(whole['version'])[:40]}, want 1")
        stack = _members(whole["stack"], ".stack", {"kind", "data"})
        pod = stack["kind"] == "dstack-pod"
        if not pod and stack["kind"] != "dstack":
            raise FormatError(f"{_SUBJECT}.stack.kind: got {ascii(stack['kind'])[:40]}")
        names = {"report_data", "runtime_events", "config"} | ({"report_data_payload"} if pod else set())
        fields = _members(stack["data"], ".stack.data", names)
        return cls(
            platform=_map_platform(whole["platform"]),
            report_data=_octets(fields["report_data"], ".report_data"),
            runtime_events=tuple(map(_map_event, _items(fields["runtime_events"], ".runtime_events"))),
            config=_string(fields["config"], ".config"),
            payload=_string(fields["report_data_payload"], ".report_data_payload") if pod else None,
        )


def _scale_platform(reader: Scale) -> Platform:
    match reader.u8():
        case TDX.variant:
            quote = reader.octets()
            return TDX(
                quote=quote, event_log=tuple(reader.items(lambda: _scale_entry(reader), most=MAX_ENTRIES))
            )
        case SNP.variant:
            return SNP(
                report=reader.octets(),
                cert_chain=tuple(reader.items(reader.octets, most=MAX_CERTIFICATES)),
                mr_config=reader.text(),
            )
        case NitroEnclave.variant:
            return NitroEnclave(document=reader.octets())
        case NitroTPM.variant:
            return NitroTPM(document=reader.octets())
        case variant:
            raise FormatError(f"{_SUBJECT}: variant is {variant}, want 0 (tdx), 2, 3 (sev-snp) or 4")


def _scale_entry(reader: Scale) -> LogEntry:
    # keyword arguments are evaluated in the order written: this call is the layout
    return LogEntry(
        imr=reader.u32le(),
        event_type=reader.u32le(),
        digest=reader.octets(),
        event=reader.text(),
        payload=reader.octets(),
    )


def _pack_platform(platform: Platform) -> bytes:
    match platform:
        case TDX(quote=quote, event_log=log):
            return pack_octets(quote) + pack_items([_pack_entry(entry) for entry in log])
        case SNP(report=report, cert_chain=chain, mr_config=document):
            return pack_octets(report) + pack_items([pack_octets(blob) for blob in chain]) + _text(document)
        case _:
            return pack_octets(platform.document)


def _pack_entry(entry: LogEntry) -> bytes:
    if entry.version != 1:
        raise FormatError(f"{_SUBJECT}: encoding 0 has no events of version {entry.version}")
    numbers = entry.imr.to_bytes(4, "little") + entry.event_type.to_bytes(4, "little")
    return numbers + pack_octets(entry.digest) + _text(entry.event) + pack_octets(entry.payload)


def _first(event: RuntimeEvent) -> RuntimeEvent:
    if event.version != 1:
        raise FormatError(f"{_SUBJECT}: encoding 0 has no events of version {event.version}")
    return event


def _platform_map(platform: Platform) -> dict[str, MessagePack]:
    match platform:
        case TDX(quote=quote, event_log=log):
            return {"quote": list(quote), "event_log": [_entry_map(entry) for entry in log]}
        case SNP(report=report, cert_chain=chain, mr_config=document):
            certificates: list[MessagePack] = [list(blob) for blob in chain]
            return {"report": list(report), "cert_chain": certificates, "mr_config": document}
        case _:
            return {platform.member: list(platform.document)}


def _map_platform(value: MessagePack) -> Platform:
    platform = _members(value, ".platform", {"kind", "data"})
    at = ".platform.data"
    match platform["kind"]:
        case TDX.kind:
            data = _members(platform["data"], at, {"quote", "event_log"})
            log = tuple(map(_map_entry, _items(data["event_log"], f"{at}.event_log")))
            return TDX(quote=_octets(data["quote"], f"{at}.quote"), event_log=log)
        case SNP.kind:
            data = _members(platform["data"], at, {"report", "cert_chain", "mr_config"})
            chain = _items(data["cert_chain"], f"{at}.cert_chain")
            return SNP(
                report=_octets(data["report"], f"{at}.report"),
                cert_chain=tuple(_octets(blob, f"{at}.cert_chain") for blob in chain),
                mr_config=_string(data["mr_config"], f"{at}.mr_config"),
            )
        case kind:
            for made in (NitroEnclave, NitroTPM):
                if made.kind == kind:
                    data = _members(platform["data"], at, {made.member})
                    return made(document=_octets(data[made.member], f"{at}.{made.member}"))
            raise FormatError(f"{_SUBJECT}.platform.kind: got {ascii(kind)[:40]}")


def _entry_map(entry: LogEntry) -> MessagePack:
    value: dict[str, MessagePack] = {
        "imr": entry.imr,
        "event_type": entry.event_type,
        "digest": entry.digest,
        "event": entry.event,
        "event_payload": entry.payload,
    }
    event = entry.runtime
    if entry.version != 1 and event is not None:
        value |= {"version": entry.version, "preimage": event.preimage.hex()}
    return value


def _map_entry(value: MessagePack) -> LogEntry:
    """The entry as its JSON has it, with bytes where that has hex: read by the same rules."""
    plain: JSON = None
    if isinstance(value, dict):
        plain = {
            name: _octets(item, f".{name}").hex() if name in {"digest", "event_payload"} else _plain(item)
            for name, item in value.items()
        }
    return LogEntry.from_json(plain, f"{_SUBJECT}.event_log")


def _event_map(event: RuntimeEvent) -> MessagePack:
    value: dict[str, MessagePack] = {"event": event.name, "payload": event.payload}
    return value if event.version == 1 else {**value, "version": event.version}


def _map_event(value: MessagePack) -> RuntimeEvent:
    versioned = isinstance(value, dict) and "version" in value
    event = _members(value, ".runtime_events", {"event", "payload"} | ({"version"} if versioned else set()))
    version = event.get("version", 1)
    if version is True or version not in (1, 2):
        raise FormatError(f"{_SUBJECT}.runtime_events: version is {ascii(version)[:40]}, want 1 or 2")
    return RuntimeEvent(
        name=_string(event["event"], ".event"),
        payload=_octets(event["payload"], ".payload"),
        version=2 if version == 2 else 1,
    )


def _members(value: MessagePack, at: str, names: set[str]) -> dict[str, MessagePack]:
    if not isinstance(value, dict) or value.keys() != names:
        raise FormatError(f"{_SUBJECT}{at}: want a map of exactly {', '.join(sorted(names))}")
    return value


def _items(value: MessagePack, at: str) -> list[MessagePack]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise FormatError(f"{_SUBJECT}{at}: want a list of at most {MAX_ENTRIES}")
    return value


def _octets(value: MessagePack, at: str) -> bytes:
    if isinstance(value, bytes):
        return value
    numbers = value if isinstance(value, list) else [None]
    octets = bytearray()
    for number in numbers:
        if type(number) is not int or not 0 <= number <= 0xFF:  # bool is an int: type() on purpose
            raise FormatError(f"{_SUBJECT}{at}: want bytes, or a list of 0..255")
        octets.append(number)
    return bytes(octets)


def _string(value: MessagePack, at: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{_SUBJECT}{at}: got {type(value).__name__}, want text")
    return value


def _plain(value: MessagePack) -> JSON:
    return value if isinstance(value, str | int) else None


def _text(text: str) -> bytes:
    try:
        return pack_octets(text.encode())
    except UnicodeEncodeError as error:
        raise FormatError(f"{_SUBJECT}: text holds a lone surrogate, want unicode") from error
