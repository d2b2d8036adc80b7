"""One evidence bundle: everything a stranger needs to verify one machine, in one value with two encodings.

    {"version": "strongroom/bundle/v1", "tee": "snp" | "tdx" | "azure-snp" | "azure-tdx",
     "report": b64u, "certificates": b64u, "gpus": [{"kind", "report", "certificates"}],
     "events": [{"name", "payload"}], "purpose": text, "challenge": b64u,
     "tpm": {"attest", "signature", "public", "certificates", "pcrs"},                only where there is one
     "collateral": {name: b64u, ...}}                                                 only where there is some

As canonical JSON, or as canonical CBOR with byte strings where JSON has base64url. What `report` and
`certificates` hold depends on the kind of machine:

    snp         attestation report                 certificate table of the host
    tdx         quote                              empty: a quote brings its chain
    azure-snp   HCL report around an SNP report    certificate table, or the VCEK chain in that form
    azure-tdx   HCL report around a TDREPORT       the quote made from that TDREPORT

Purpose and challenge are repeated here for people and for storage; a verifier compares them with what it
expected and never learns them from here.
"""

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, Literal, Self, TypeGuard, get_args

from strongroom.errors import FormatError
from strongroom.evidence.binding import MIN_CHALLENGE, Purpose
from strongroom.evidence.collateral import MAX_BYTES as MAX_COLLATERAL
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.wire.canonical import JSON, pack_json, parse_json, unb64u
from strongroom.wire.cbor import CBOR, as_json, pack_cbor, parse_cbor

__all__ = ["MAX_BYTES", "MAX_PACKED", "Bundle", "GPUEvidence", "TEEKind"]

TEEKind = Literal["snp", "tdx", "azure-snp", "azure-tdx"]

VERSION: Final = "strongroom/bundle/v1"
MAX_BYTES: Final = 256 * 1024  # of the canonical JSON, collateral apart
MAX_PACKED: Final = MAX_BYTES + MAX_COLLATERAL * 3 // 2  # of everything, base64 and names included
MAX_GPUS: Final = 16  # switches included
_TEES: Final = get_args(TEEKind)
_KEYS: Final = {"version", "tee", "report", "certificates", "gpus", "events", "purpose", "challenge"}
_OPTIONAL: Final = {"tpm", "collateral"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Evidence of one machine for one purpose and one challenge, as yet unverified."""

    tee: TEEKind = "snp"
    report: bytes
    certificates: bytes  # what the host adds to the report, empty when it gave nothing
    gpus: tuple[GPUEvidence, ...] = ()  # and the switches between them
    tpm: TPMEvidence | None = None
    events: EventLog
    purpose: Purpose
    challenge: bytes
    collateral: Collateral = field(default_factory=Collateral)

    def __post_init__(self) -> None:
        if not _is_tee(self.tee):
            raise FormatError(f"evidence bundle: tee is {self.tee!a}, want one of {', '.join(_TEES)}")
        if len(self.challenge) < MIN_CHALLENGE:
            raise FormatError(
                f"evidence bundle: challenge is {len(self.challenge)} bytes, want at least {MIN_CHALLENGE}"
            )
        if len(self.gpus) > MAX_GPUS:
            raise FormatError(f"evidence bundle: {len(self.gpus)} gpus, want at most {MAX_GPUS}")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the evidence as canonical JSON. Collateral, which may be renewed, is not part of it."""
        return sha256(pack_json(as_json(self._evidence()))).digest()

    @property
    def bare(self) -> Self:
        """The same evidence without its collateral."""
        return replace(self, collateral=Collateral())

    def to_json(self) -> dict[str, JSON]:
        return {key: as_json(value) for key, value in self._members().items()}

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        if not isinstance(value, dict) or not _KEYS <= value.keys() <= _KEYS | _OPTIONAL:
            raise FormatError(
                f"evidence bundle: want exactly the keys {', '.join(sorted(_KEYS))}, and perhaps "
                f"{', '.join(sorted(_OPTIONAL))}"
            )
        if value["version"] != VERSION:
            raise FormatError(f"evidence bundle: version is {ascii(value['version'])[:40]}, want {VERSION}")
        gpus = value["gpus"]
        if not isinstance(gpus, list) or len(gpus) > MAX_GPUS:
            raise FormatError(f"evidence bundle: gpus must be a list of at most {MAX_GPUS}")
        return cls(
            tee=_tee(value["tee"]),
            report=_bytes(value, "report"),
            certificates=_bytes(value, "certificates"),
            gpus=tuple(GPUEvidence.from_json(g, f"evidence bundle.gpus[{n}]") for n, g in enumerate(gpus)),
            tpm=TPMEvidence.from_json(value["tpm"], "evidence bundle.tpm") if "tpm" in value else None,
            events=EventLog.from_json(value["events"]),
            purpose=_purpose(value["purpose"]),
            challenge=_bytes(value, "challenge"),
            collateral=(
                Collateral.from_json(value["collateral"], "evidence bundle.collateral")
                if "collateral" in value
                else Collateral()
            ),
        )

    def pack(self) -> bytes:
        """Canonical JSON: at most MAX_BYTES, and its collateral."""
        self._require_small()
        return pack_json(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The bundle in `data`, whose encoding must be the canonical one."""
        bundle = cls.from_json(parse_json(data, "evidence bundle", max_bytes=MAX_PACKED))
        if bundle.pack() != data:
            raise FormatError("evidence bundle: not in canonical form")
        return bundle

    def pack_cbor(self) -> bytes:
        """Canonical CBOR of the same value, a quarter smaller."""
        self._require_small()
        return pack_cbor(self._members())

    @classmethod
    def parse_cbor(cls, data: bytes) -> Self:
        """The bundle in `data`, whose encoding must be the canonical one."""
        bundle = cls.from_json(as_json(parse_cbor(data, "evidence bundle", max_bytes=MAX_PACKED)))
        if bundle.pack_cbor() != data:  # which also refuses text where bytes belong
            raise FormatError("evidence bundle: not in canonical form")
        return bundle

    def _require_small(self) -> None:
        size = len(pack_json(as_json(self._evidence())))
        if size > MAX_BYTES:
            raise FormatError(f"evidence bundle: {size} bytes, want at most {MAX_BYTES}")

    def _members(self) -> dict[str, CBOR]:
        return self._evidence() | ({"collateral": dict(self.collateral.entries)} if self.collateral else {})

    def _evidence(self) -> dict[str, CBOR]:
        members: dict[str, CBOR] = {
            "version": VERSION,
            "tee": self.tee,
            "report": self.report,
            "certificates": self.certificates,
            "gpus": [gpu.to_cbor() for gpu in self.gpus],
            "events": [{"name": event.name, "payload": event.payload} for event in self.events.events],
            "purpose": self.purpose.value,
            "challenge": self.challenge,
        }
        return members if self.tpm is None else members | {"tpm": self.tpm.to_cbor()}


def _is_tee(value: JSON) -> TypeGuard[TEEKind]:
    return isinstance(value, str) and value in _TEES


def _tee(value: JSON) -> TEEKind:
    if not _is_tee(value):
        raise FormatError(f"evidence bundle: tee is {ascii(value)[:40]}, want one of {', '.join(_TEES)}")
    return value


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
