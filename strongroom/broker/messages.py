"""The four bodies of a key release (KBS protocol 0.4.0) as values. Mind the spelling: hyphens outside, underscores
inside `tee-evidence`, and `additional_evidence` is text that holds JSON.

What a guest sends is read strictly: an unknown member is refused, it may be a wish we would silently not fulfil.
What a broker answers is read for the members we know; a newer broker may say more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from strongroom.broker.errors import VERSION_MISMATCH
from strongroom.errors import FormatError, ProtocolError
from strongroom.wire.canonical import JSON, pack_json, parse_json
from strongroom.wire.line import sentence

VERSION: Final = "0.4.0"
TEE: Final = "snp"
COOKIE: Final = "kbs-session-id"
HASH: Final = (
    "sha384"  # the only one whose digest has the reserved shape of report_data (evidence/binding.py)
)

MAX_REQUEST: Final = 16 << 10  # bytes of an auth body
MAX_CHALLENGE: Final = 16 << 10
MAX_ATTESTATION: Final = 2 << 20
MAX_TOKEN: Final = 256 << 10
MAX_SEALED: Final = 256 << 10  # bytes of a resource answer
_MAX_NONCE: Final = 1024  # characters

_EXTRA: Final = "extra-params"
_SELECTED: Final = "selected-hash-algorithm"
_SUPPORTED: Final = "supported-hash-algorithms"


@dataclass(frozen=True, slots=True)
class Request:
    """POST /kbs/v0/auth."""

    tee: str
    hashes: tuple[str, ...] = (HASH,)  # () when the guest names none

    def pack(self) -> bytes:
        return pack_json({"version": VERSION, "tee": self.tee, _EXTRA: {_SUPPORTED: list(self.hashes)}})

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """FormatError for a malformed request, ProtocolError (in the protocol's own words) for another version."""
        value = _object(parse_json(body, "request", max_bytes=MAX_REQUEST), "request")
        version = _text(value, "version", "request")
        if version != VERSION:  # before all else: what follows may be spelt differently there
            raise ProtocolError(
                f"{VERSION_MISMATCH}={VERSION} while the request is {sentence(version, most=40)}"
            )
        _exactly(value, {"version", "tee", _EXTRA}, "request")
        return cls(_text(value, "tee", "request"), _hashes(value[_EXTRA]))


@dataclass(frozen=True, slots=True)
class Challenge:
    """The answer to a Request. The nonce is opaque text and enters the digest as received."""

    nonce: str

    def pack(self) -> bytes:
        return pack_json({"nonce": self.nonce, _EXTRA: ""})

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """FormatError also when the broker selects a digest other than sha384."""
        value = _object(parse_json(body, "challenge", max_bytes=MAX_CHALLENGE), "challenge")
        nonce = _text(value, "nonce", "challenge")
        if not 16 <= len(nonce) <= _MAX_NONCE:
            raise FormatError(f"challenge.nonce: got {len(nonce)} characters, want 16..{_MAX_NONCE}")
        extra = value.get(_EXTRA)
        if extra not in ("", None):
            selected = _object(extra, f"challenge.{_EXTRA}").get(_SELECTED, HASH)
            if selected != HASH:
                raise FormatError(f"challenge.{_SELECTED}: got {ascii(selected)[:40]}, want {HASH}")
        return cls(nonce)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """POST /kbs/v0/attest. `tee_pubkey` is the JWK as sent: the digest is over those members."""

    nonce: str
    tee_pubkey: Mapping[str, JSON]
    primary: JSON
    additional: str = ""  # text holding JSON of device evidence; hashed as this very text

    def runtime_data(self) -> dict[str, JSON]:
        """The object whose digest the primary evidence carries."""
        return runtime_data(self.nonce, self.tee_pubkey, self.additional)

    def pack(self) -> bytes:
        evidence: JSON = {"primary_evidence": self.primary, "additional_evidence": self.additional}
        runtime: JSON = {"nonce": self.nonce, "tee-pubkey": dict(self.tee_pubkey)}
        return pack_json({"init-data": None, "runtime-data": runtime, "tee-evidence": evidence})

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Init-data is refused: HOST_DATA is judged by policy as the report states it, not through a TOML text."""
        value = _object(parse_json(body, "attestation", max_bytes=MAX_ATTESTATION), "attestation")
        _exactly(value, {"init-data", "runtime-data", "tee-evidence"}, "attestation")
        if value["init-data"] is not None:
            raise FormatError(
                "attestation.init-data: got some, want null (this broker judges HOST_DATA by policy)"
            )
        runtime = _object(value["runtime-data"], "attestation.runtime-data")
        _exactly(runtime, {"nonce", "tee-pubkey"}, "attestation.runtime-data")
        evidence = _object(value["tee-evidence"], "attestation.tee-evidence")
        _exactly(evidence, {"primary_evidence", "additional_evidence"}, "attestation.tee-evidence")
        return cls(
            nonce=_text(runtime, "nonce", "attestation.runtime-data"),
            tee_pubkey=_object(runtime["tee-pubkey"], "attestation.tee-pubkey"),
            primary=evidence["primary_evidence"],
            additional=_text(evidence, "additional_evidence", "attestation.tee-evidence"),
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
