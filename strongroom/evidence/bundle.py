"""One evidence bundle: everything a stranger needs to verify one report, in one canonical JSON value.

    {"version": "strongroom/bundle/v1", "tee": "snp", "report": b64u, "certificates": b64u,
     "gpus": [{"kind", "report", "certificates"}], "events": [{"name", "payload"}],
     "purpose": text, "challenge": b64u}

Purpose and challenge are repeated here for people and for storage; a verifier compares them with what it
expected and never learns them from here.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, Self

from strongroom.errors import FormatError
from strongroom.evidence.binding import MIN_CHALLENGE, Purpose
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

__all__ = ["MAX_BYTES", "Bundle", "GPUEvidence"]

VERSION: Final = "strongroom/bundle/v1"
MAX_BYTES: Final = 256 * 1024
MAX_GPUS: Final = 16
_KEYS: Final = {"version", "tee", "report", "certificates", "gpus", "events", "purpose", "challenge"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Evidence of one machine for one purpose and one challenge, as yet unverified."""

    tee: Literal["snp"] = "snp"
    report: bytes
    certificates: bytes  # the certificate table of the CPU report, empty when the host gave none
    gpus: tuple[GPUEvidence, ...] = ()
    events: EventLog
    purpose: Purpose
    challenge: bytes

    def __post_init__(self) -> None:
        if self.tee != "snp":
            raise FormatError(f"evidence bundle: tee is {self.tee!a}, want snp")
        if len(self.challenge) < MIN_CHALLENGE:
            raise FormatError(
                f"evidence bundle: challenge is {len(self.challenge)} bytes, want at least {MIN_CHALLENGE}"
            )
        if len(self.gpus) > MAX_GPUS:
            raise FormatError(f"evidence bundle: {len(self.gpus)} gpus, want at most {MAX_GPUS}")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the packed bundle."""
        return sha256(self.pack()).digest()

    def to_json(self) -> dict[str, JSON]:
        return {
            "version": VERSION,
            "tee": self.tee,
            "report": b64u(self.report),
            "certificates": b64u(self.certificates),
            "gpus": [gpu.to_json() for gpu in self.gpus],
            "events": self.events.to_json(),
            "purpose": self.purpose.value,
            "challenge": b64u(self.challenge),
        }

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        if not isinstance(value, dict) or value.keys() != _KEYS:
            raise FormatError(f"evidence bundle: want exactly the keys {', '.join(sorted(_KEYS))}")
        if value["version"] != VERSION:
            raise FormatError(f"evidence bundle: version is {ascii(value['version'])[:40]}, want {VERSION}")
        if value["tee"] != "snp":
            raise FormatError(f"evidence bundle: tee is {ascii(value['tee'])[:40]}, want snp")
        gpus = value["gpus"]
        if not isinstance(gpus, list) or len(gpus) > MAX_GPUS:
            raise FormatError(f"evidence bundle: gpus must be a list of at most {MAX_GPUS}")
        return cls(
            report=_bytes(value, "report"),
            certificates=_bytes(value, "certificates"),
            gpus=tuple(GPUEvidence.from_json(g, f"evidence bundle.gpus[{n}]") for n, g in enumerate(gpus)),
            events=EventLog.from_json(value["events"]),
            purpose=_purpose(value["purpose"]),
            challenge=_bytes(value, "challenge"),
        )

    def pack(self) -> bytes:
        """Canonical JSON, at most MAX_BYTES."""
        packed = pack_json(self.to_json())
        if len(packed) > MAX_BYTES:
            raise FormatError(f"evidence bundle: {len(packed)} bytes, want at most {MAX_BYTES}")
        return packed

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The bundle in `data`, whose encoding must be the canonical one."""
        bundle = cls.from_json(parse_json(data, "evidence bundle", max_bytes=MAX_BYTES))
        if bundle.pack() != data:
            raise FormatError("evidence bundle: not in canonical form")
        return bundle


def _bytes(value: dict[str, JSON], key: str) -> bytes:
    text = value[key]
    if not isinstance(text, str):
        raise FormatError(f"evidence bundle: {key} must be text")
    return unb64u(text, f"evidence bundle.{key}")


def _purpose(value: JSON) -> Purpose:
    if not isinstance(value, str) or value not in {*Purpose}:
        raise FormatError(
            f"evidence bundle: purpose is {ascii(value)[:40]}, want one of {', '.join(Purpose)}"
        )
    return Purpose(value)
