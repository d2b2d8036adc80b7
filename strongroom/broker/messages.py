"""The four bodies of a key release (KBS protocol) as values. Mind the spelling: hyphens outside, underscores inside
`tee-evidence`, and `additional_evidence` is text that holds JSON.

What a guest sends is read strictly: an unknown member is refused, it may be a wish we would silently not fulfil.
What a broker answers is read for the members we know; a newer broker may say more.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from strongroom.broker.dialect import CURRENT, DIALECTS, Dialect
from strongroom.broker.errors import VERSION_MISMATCH
from strongroom.errors import FormatError, ProtocolError
from strongroom.evidence.binding import kbs_digest
from strongroom.evidence.initdata import InitData
from strongroom.wire.canonical import JSON, pack_json, parse_json
from strongroom.wire.line import sentence

COOKIE: Final = "kbs-session-id"
# The default, and the one whose digest has the reserved shape of report_data (evidence/binding.py).
HASH: Final = "sha384"

MAX_REQUEST: Final = 16 << 10  # bytes of an auth body
MAX_CHALLENGE: Final = 16 << 10
MAX_ATTESTATION: Final = 1 << 20  # 16 devices with their chains are about 0.5 MiB, init-data at most 0.25
MAX_VALUES: Final = 32 << 10  # of an attestation; certificates come as lists of octets
MAX_TOKEN: Final = 256 << 10
MAX_SEALED: Final = 256 << 10  # bytes of a resource answer
_MAX_NONCE: Final = 1024  # characters

_EXTRA: Final = "extra-params"
_SELECTED: Final = "selected-hash-algorithm"
_SUPPORTED: Final = "supported-hash-algorithms"
_EVENTS: Final = "strongroom-event-log"  # ours: this broker reads the agent's log beside the evidence
_TOML: Final = "toml"


@dataclass(frozen=True, slots=True)
class Request:
    """POST /kbs/v0/auth."""

    tee: str
    hashes: tuple[str, ...] = (HASH,)  # () when the guest names none
    dialect: Dialect = CURRENT

    def pack(self) -> bytes:
        extra: JSON = {_SUPPORTED: list(self.hashes)} if self.hashes else ""
        return pack_json({"version": self.dialect.version, "tee": self.tee, _EXTRA: extra})

    @classmethod
    def parse(cls, body: bytes, versions: Collection[str] = (CURRENT.version,)) -> Self:
        """FormatError for a malformed request, ProtocolError (in the protocol's own words) for another version."""
        value = _object(parse_json(body, "request", max_bytes=MAX_REQUEST), "request")
        version = _text(value, "version", "request")
        if version not in versions:  # before all else: what follows may be spelt differently there
            spoken = " or =".join(sorted(versions))
            raise ProtocolError(
                f"{VERSION_MISMATCH}={spoken} while the request is {sentence(version, most=40)}"
            )
        _exactly(value, {"version", "tee", _EXTRA}, "request")
        return cls(_text(value, "tee", "request"), _hashes(value[_EXTRA]), DIALECTS[version])


@dataclass(frozen=True, slots=True)
class Challenge:
    """The answer to a Request. The nonce is opaque text and enters the digest as received."""

    nonce: str
    hash: str = HASH
    takes_events: bool = False  # whether this broker reads our event log

    def pack(self) -> bytes:
        extra: dict[str, JSON] = {_SELECTED: self.hash} if self.hash != HASH else {}
        if self.takes_events:
            extra[_EVENTS] = True
        return pack_json({"nonce": self.nonce, _EXTRA: extra or ""})

    @classmethod
    def parse(cls, body: bytes, hashes: Collection[str] = (HASH,)) -> Self:
        """FormatError also when the broker selects a digest that is not among `hashes`."""
        value = _object(parse_json(body, "challenge", max_bytes=MAX_CHALLENGE), "challenge")
        nonce = _text(value, "nonce", "challenge")
        if not 16 <= len(nonce) <= _MAX_NONCE:
            raise FormatError(f"challenge.nonce: got {len(nonce)} characters, want 16..{_MAX_NONCE}")
        extra = value.get(_EXTRA)
        members = {} if extra in ("", None) else _object(extra, f"challenge.{_EXTRA}")
        selected = members.get(_SELECTED, HASH)
        if not isinstance(selected, str) or selected not in hashes:
            raise FormatError(
                f"challenge.{_SELECTED}: got {ascii(selected)[:40]}, want {' or '.join(sorted(hashes))}"
            )
        return cls(nonce, selected, members.get(_EVENTS) is True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """POST /kbs/v0/attest. `tee_pubkey` is the JWK as sent: the digests are over those members."""

    nonce: str  # of the session; dialects that do not repeat it do not say it
    tee_pubkey: Mapping[str, JSON]
    primary: JSON
    additional: str = ""  # text holding JSON of device evidence; hashed as this very text
    init_data: InitData | None = None
    dialect: Dialect = CURRENT

    def runtime_data(self) -> dict[str, JSON]:
        """The object whose digest the primary evidence carries."""
        if not self.dialect.composite:
            return device_data(self.nonce, self.tee_pubkey)
        return runtime_data(self.nonce, self.tee_pubkey, self.additional)

    def digest(self, hash: str = HASH) -> bytes:
        """What the CPU's evidence has to carry."""
        return kbs_digest(self.runtime_data(), hash)

    def device_digest(self, hash: str = HASH) -> bytes:
        """What the devices' evidence has to carry, cut to their nonce."""
        return kbs_digest(device_data(self.nonce, self.tee_pubkey), hash)

    def pack(self) -> bytes:
        evidence: JSON = {"primary_evidence": self.primary, "additional_evidence": self.additional}
        if not self.dialect.repeats_nonce:
            body = evidence if self.dialect.composite else self.primary
            return pack_json({"tee-pubkey": dict(self.tee_pubkey), "tee-evidence": body})
        runtime: JSON = {"nonce": self.nonce, "tee-pubkey": dict(self.tee_pubkey)}
        given: JSON = None if self.init_data is None else {"format": _TOML, "body": self.init_data.text}
        return pack_json({"init-data": given, "runtime-data": runtime, "tee-evidence": evidence})

    @classmethod
    def parse(cls, body: bytes, *, dialect: Dialect = CURRENT, nonce: str = "") -> Self:
        """`nonce` is the session's, for the dialects that do not repeat it."""
        value = _object(
            parse_json(body, "attestation", max_bytes=MAX_ATTESTATION, max_values=MAX_VALUES), "attestation"
        )
        if not dialect.repeats_nonce:
            _exactly(value, {"tee-pubkey", "tee-evidence"}, "attestation")
            primary, additional = _evidence(value["tee-evidence"], dialect)
            key = _object(value["tee-pubkey"], "attestation.tee-pubkey")
            return cls(nonce=nonce, tee_pubkey=key, primary=primary, additional=additional, dialect=dialect)
        _exactly(value, {"init-data", "runtime-data", "tee-evidence"}, "attestation")
        runtime = _object(value["runtime-data"], "attestation.runtime-data")
        _exactly(runtime, {"nonce", "tee-pubkey"}, "attestation.runtime-data")
        primary, additional = _evidence(value["tee-evidence"], dialect)
        return cls(
            nonce=_text(runtime, "nonce", "attestation.runtime-data"),
            tee_pubkey=_object(runtime["tee-pubkey"], "attestation.tee-pubkey"),
            primary=primary,
            additional=additional,
            init_data=_init_data(value["init-data"]),
            dialect=dialect,
        )


@dataclass(frozen=True, slots=True)
class TokenReply:
    """The answer to an Attestation: an EAR token, opaque to the guest."""

    token: str = field(repr=False)  # whoever holds it speaks for the session

    def pack(self) -> bytes:
        return pack_json({"token": self.token})

    @classmethod
    def parse(cls, body: bytes) -> Self:
        value = _object(parse_json(body, "token", max_bytes=MAX_TOKEN), "token")
        return cls(_text(value, "token", "token"))


def runtime_data(nonce: str, tee_pubkey: Mapping[str, JSON], additional: str) -> dict[str, JSON]:
    """What is hashed for the primary evidence: `additional-evidence` has a hyphen here, and is present when empty."""
    return {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": dict(tee_pubkey)}


def device_data(nonce: str, tee_pubkey: Mapping[str, JSON]) -> dict[str, JSON]:
    """What is hashed for the evidence of devices, and for all evidence before it was composite."""
    return {"nonce": nonce, "tee-pubkey": dict(tee_pubkey)}


def _evidence(value: JSON, dialect: Dialect) -> tuple[JSON, str]:
    if not dialect.composite:
        return value, ""
    evidence = _object(value, "attestation.tee-evidence")
    _exactly(evidence, {"primary_evidence", "additional_evidence"}, "attestation.tee-evidence")
    return evidence["primary_evidence"], _text(evidence, "additional_evidence", "attestation.tee-evidence")


def _init_data(value: JSON) -> InitData | None:
    if value is None:
        return None
    members = _object(value, "attestation.init-data")
    _exactly(members, {"format", "body"}, "attestation.init-data")
    if members["format"] != _TOML:
        raise FormatError(f"attestation.init-data.format: got {ascii(members['format'])[:40]}, want {_TOML}")
    text = _text(members, "body", "attestation.init-data")
    try:
        return InitData.parse(text)
    except FormatError as error:
        raise FormatError(f"attestation.{error}") from None


def _hashes(extra: JSON) -> tuple[str, ...]:
    if extra in ("", {}):
        return ()
    value = _object(extra, f"request.{_EXTRA}")
    _exactly(value, {_SUPPORTED}, f"request.{_EXTRA}")
    listed = value[_SUPPORTED]
    if not isinstance(listed, list) or len(listed) > 16:
        raise FormatError(f"request.{_SUPPORTED}: want a list of at most 16 names")
    names = tuple(name for name in listed if isinstance(name, str))
    if len(names) != len(listed):
        raise FormatError(f"request.{_SUPPORTED}: want text only")
    return names


def _object(value: JSON, subject: str) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: got {type(value).__name__}, want an object")
    return value


def _exactly(value: Mapping[str, JSON], members: set[str], subject: str) -> None:
    if unknown := value.keys() - members:
        raise FormatError(f"{subject}.{sentence(min(unknown), most=60)}: unknown member")
    if missing := members - value.keys():
        raise FormatError(f"{subject}.{min(missing)}: missing")


def _text(value: Mapping[str, JSON], name: str, subject: str) -> str:
    if name not in value:
        raise FormatError(f"{subject}.{name}: missing")
    text = value[name]
    if not isinstance(text, str):
        raise FormatError(f"{subject}.{name}: got {type(text).__name__}, want text")
    return text
