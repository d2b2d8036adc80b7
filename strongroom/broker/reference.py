"""Reference values of one image in a signed file (docs/formats/reference-values.md).

    {"key": b64u Ed25519, "reference_values": {...}, "signature": b64u}      canonical JSON, a line break behind it

The signature is over "strongroom/reference-values/v1" || 00 || canonical JSON of `reference_values`. Whoever builds
the image signs; whoever runs a broker says which key may speak for a name. A key in the file is no trust by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.broker.signed import parse_key
from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

VERSION: Final = "strongroom/reference-values/v1"
MAX_BYTES: Final = 256 << 10
MAX_MEASUREMENTS: Final = 1024
_SUBJECT: Final = "reference values"
_FAR: Final = 2**37  # unix seconds, beyond the year 6000
_REQUIRED: Final = frozenset({"version", "name", "serial", "measurements"})
_OPTIONAL: Final = frozenset({"not_before", "not_after", "source"})
_REGISTER: Final = 48  # bytes
_PCR: Final = 32
_MEMBERS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {  # kind -> required, optional
    "snp": (frozenset({"value"}), frozenset()),
    "tdx": (frozenset({"mr_td", "rtmr0", "rtmr1", "rtmr2"}), frozenset({"rtmr3"})),
    "tpm": (frozenset({"pcrs"}), frozenset()),
}
_WORDS: Final[Mapping[str, frozenset[str]]] = {  # what a register may be instead of a value
    "value": frozenset(),
    "mr_td": frozenset({"any"}),
    "rtmr0": frozenset({"any"}),
    "rtmr1": frozenset({"any"}),
    "rtmr2": frozenset({"any"}),
    "rtmr3": frozenset({"any", "events"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One accepted state of a machine: which kind, and the members a policy has for that kind (without `kind`)."""

    kind: str  # snp, tdx or tpm
    name: str
    members: Mapping[str, JSON]

    def to_json(self) -> dict[str, JSON]:
        return {"kind": self.kind, **self.for_policy()}

    def for_policy(self) -> dict[str, JSON]:
        """As an entry of `measurements`, `tdx.images` or `tpm.states`."""
        return {"name": self.name, **self.members}

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        members = _object(value, at)
        kind = members.get("kind")
        if not isinstance(kind, str) or kind not in _MEMBERS:
            raise FormatError(f"{at}.kind: want one of {', '.join(_MEMBERS)}")
        required, optional = _MEMBERS[kind]
        _exactly(members, required | {"kind", "name"}, optional, at)
        name = _line(members["name"], f"{at}.name")
        rest = {key: member for key, member in members.items() if key not in ("kind", "name")}
        for key, member in rest.items():
            _pcrs(member, f"{at}.pcrs") if key == "pcrs" else _register(member, key, f"{at}.{key}")
        return cls(kind=kind, name=name, members=rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """What one image measures to, on every kind of machine it was computed for."""

    name: str
    serial: int  # of this set; a broker takes none that is older than the one it has
    measurements: tuple[Measurement, ...]
    not_before: datetime | None = None
    not_after: datetime | None = None  # the first moment at which it holds no more
    source: str | None = None  # where it came from, for a person

    def holds_at(self, now: datetime) -> bool:
        begun = self.not_before is None or self.not_before <= now
        return begun and (self.not_after is None or now < self.not_after)

    def to_json(self) -> dict[str, JSON]:
        value: dict[str, JSON] = {
            "version": VERSION,
            "name": self.name,
            "serial": self.serial,
            "measurements": [one.to_json() for one in self.measurements],
        }
        for key, moment in (("not_before", self.not_before), ("not_after", self.not_after)):
            if moment is not None:
                value[key] = int(moment.timestamp())
        return value if self.source is None else {**value, "source": self.source}

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """FormatError with the path of the first member that is wrong. A set that accepts nothing is one."""
        members = _object(value, _SUBJECT)
        if members.get("version") != VERSION:
            raise FormatError(f"{_SUBJECT}.version: want {VERSION}")
        _exactly(members, _REQUIRED, _OPTIONAL, _SUBJECT)
        listed = members["measurements"]
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_MEASUREMENTS:
            raise FormatError(f"{_SUBJECT}.measurements: want a list of 1..{MAX_MEASUREMENTS}")
        return cls(
            name=_line(members["name"], f"{_SUBJECT}.name"),
            serial=_whole(members["serial"], f"{_SUBJECT}.serial", 2**53 - 1),
            measurements=tuple(
                Measurement.from_json(one, f"{_SUBJECT}.measurements[{n}]") for n, one in enumerate(listed)
            ),
            not_before=_moment(members, "not_before"),
            not_after=_moment(members, "not_after"),
            source=_line(members["source"], f"{_SUBJECT}.source") if "source" in members else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReferences:
    """The file. Nothing in it is believed before `verify`."""

    values: ReferenceValues
    key: bytes
    signature: bytes = field(repr=False)

    def pack(self) -> bytes:
        envelope: dict[str, JSON] = {
            "reference_values": self.values.to_json(),
            "key": b64u(self.key),
            "signature": b64u(self.signature),
        }
        return pack_json(envelope) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """FormatError also for another writing of the same values: a file has one form."""
        value = _object(parse_json(data, _SUBJECT, max_bytes=MAX_BYTES), _SUBJECT)
        _exactly(value, frozenset({"reference_values", "key", "signature"}), frozenset(), _SUBJECT)
        signature = unb64u(_line(value["signature"], f"{_SUBJECT}.signature"), f"{_SUBJECT}.signature")
        key = parse_key(_line(value["key"], f"{_SUBJECT}.key"), f"{_SUBJECT}.key")
        values = ReferenceValues.from_json(value["reference_values"])
        parsed = cls(values=values, key=key, signature=signature)
        if parsed.pack().removesuffix(b"\n") != data.removesuffix(b"\n"):
            raise FormatError(f"{_SUBJECT}: not in canonical form (RFC 8785)")
        return parsed

    def verify(self, key: bytes) -> ReferenceValues:
        """The values, if `key` signed them. VerifyError otherwise."""
        if self.key != key:
            raise VerifyError(
                f"{_SUBJECT} {self.values.name}: signed by key {b64u(self.key)}, want {b64u(key)}"
            )
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(self.signature, _message(self.values))
        except InvalidSignature:
            raise VerifyError(f"{_SUBJECT} {self.values.name}: the signature does not verify") from None
        return self.values


def sign(values: ReferenceValues, key: Ed25519PrivateKey) -> SignedReferences:
    """What the image build writes."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return SignedReferences(values=values, key=public, signature=key.sign(_message(values)))


def _message(values: ReferenceValues) -> bytes:
    return VERSION.encode() + b"\0" + pack_json(values.to_json())


def _register(value: JSON, name: str, at: str) -> None:
    if not isinstance(value, str) or value not in _WORDS[name]:
        _hex(value, _REGISTER, at)


def _pcrs(value: JSON, at: str) -> None:
    pcrs = _object(value, at)
    names = {f"pcr{index}" for index in range(24)}
    if not pcrs or pcrs.keys() - names:
        raise FormatError(f"{at}: want pcr0..pcr23, at least one")
    for name, one in pcrs.items():
        if one != "events":
            _hex(one, _PCR, f"{at}.{name}")


def _hex(value: JSON, size: int, at: str) -> None:
    if not isinstance(value, str) or len(value) != 2 * size or not set(value) <= set("0123456789abcdef"):
        raise FormatError(f"{at}: want {2 * size} lowercase hex digits")


def _moment(members: Mapping[str, JSON], name: str) -> datetime | None:
    if name not in members:
        return None
    return datetime.fromtimestamp(_whole(members[name], f"{_SUBJECT}.{name}", _FAR), UTC)


def _whole(value: JSON, at: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise FormatError(f"{at}: want a whole number 0..{most}")
    return value


def _line(value: JSON, at: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256 or not value.isprintable():
        raise FormatError(f"{at}: want one line of text, at most 256 characters")
    return value


def _object(value: JSON, at: str) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise FormatError(f"{at}: got {type(value).__name__}, want an object")
    return value


def _exactly(value: Mapping[str, JSON], required: frozenset[str], optional: frozenset[str], at: str) -> None:
    if unknown := value.keys() - required - optional:
        raise FormatError(f"{at}.{ascii(min(unknown))[1:-1][:60]}: unknown member")
    if missing := required - value.keys():
        raise FormatError(f"{at}.{min(missing)}: missing")
