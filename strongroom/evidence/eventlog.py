"""The guest's own event log: what the measured agent did, in order, and the head that commits to all of it.

    head_0     = 48 zero bytes
    head_{n+1} = SHA-384(head_n || SHA-384("strongroom/event/v1\\0" || enc(name) || enc(payload)))

Plain SEV-SNP has no runtime register, so the head is bound into report_data as its context; where a register
exists, it is extended as well: RTMR 3 with the digest of each event, which makes it equal to the head, and PCR 15 of
a vTPM with the SHA-256 of each new head.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256, sha384
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, b64u, unb64u
from strongroom.wire.framing import enc

PCR: Final = 15  # free for the operating system; the image masks systemd's own use of it
MAX_EVENTS: Final = 256
MAX_PAYLOAD: Final = 64 * 1024  # bytes
_LABEL: Final = b"strongroom/event/v1\0"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing the agent did; the payload is canonical JSON unless the name says otherwise."""

    name: str
    payload: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise FormatError(f"event: name is {self.name[:64]!a}, want lowercase words with hyphens")
        if len(self.payload) > MAX_PAYLOAD:
            raise FormatError(f"event {self.name}: {len(self.payload)} bytes, want at most {MAX_PAYLOAD}")

    @property
    def measured(self) -> bytes:
        """The bytes that `digest` is over."""
        return _LABEL + enc(self.name.encode()) + enc(self.payload)

    @property
    def digest(self) -> bytes:
        return sha384(self.measured).digest()


@dataclass(frozen=True, slots=True)
class EventLog:
    """An ordered, append-only list of events; extending makes a new log."""

    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        if len(self.events) > MAX_EVENTS:
            raise FormatError(f"event log: {len(self.events)} events, want at most {MAX_EVENTS}")

    def extend(self, event: Event) -> "EventLog":
        return EventLog((*self.events, event))

    @property
    def head(self) -> bytes:
        """48 bytes that commit to every event and to their order."""
        *_, head = bytes(48), *self._heads()
        return head

    @property
    def pcr(self) -> bytes:
        """The 32 bytes of a PCR (SHA-256 bank) that was zero and then followed this log."""
        value = bytes(32)
        for head in self._heads():
            value = sha256(value + sha256(head).digest()).digest()
        return value

    def find(self, name: str) -> bytes | None:
        """The payload of the one event called `name`, or None; FormatError when it repeats."""
        payloads = [event.payload for event in self.events if event.name == name]
        if len(payloads) > 1:
            raise FormatError(f"event log: {len(payloads)} events named {name}, want one")
        return payloads[0] if payloads else None

    def _heads(self) -> Iterator[bytes]:
        """The head after each event."""
        head = bytes(48)
        for event in self.events:
            head = sha384(head + event.digest).digest()
            yield head

    def to_json(self) -> JSON:
        return [{"name": event.name, "payload": b64u(event.payload)} for event in self.events]

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        if not isinstance(value, list):
            raise FormatError("event log: not a list")
        if len(value) > MAX_EVENTS:
            raise FormatError(f"event log: {len(value)} events, want at most {MAX_EVENTS}")
        return cls(tuple(_event(item, f"event log[{n}]") for n, item in enumerate(value)))


def _event(value: JSON, at: str) -> Event:
    if not isinstance(value, dict) or value.keys() != {"name", "payload"}:
        raise FormatError(f"{at}: want exactly the keys name, payload")
    name, payload = value["name"], value["payload"]
    if not isinstance(name, str) or not isinstance(payload, str):
        raise FormatError(f"{at}: name and payload must be text")
    return Event(name, unb64u(payload, f"{at}.payload"))
