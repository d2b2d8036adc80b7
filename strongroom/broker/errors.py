"""What a broker answers when it does not give: a type URI, and the error each one is for the guest.

The status tells little: Trustee answers 401 to nearly everything, so the type decides. What re-attesting cannot
change is never retried; trouble inside the broker is a TransportError, which may be. Brokers of other makers answer
with a problem document and a status that means something; that is read too.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from strongroom.errors import (
    FormatError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.wire.canonical import pack_json, parse_json
from strongroom.wire.line import sentence

TYPE_PREFIX: Final = "https://github.com/confidential-containers/kbs/errors/"
VERSION_MISMATCH: Final = "KBS Client Protocol Version Mismatch: expect "
MAX_REFUSAL: Final = 64 << 10  # bytes of an error body


class Kind(StrEnum):
    """The variants a guest can meet. Everything else a broker may name is trouble of its own."""

    ATTESTATION = "AttestationError"
    TOKEN_NOT_FOUND = "TokenNotFound"
    TOKEN_VERIFIER = "TokenVerifierError"
    POLICY_DENY = "PolicyDeny"
    PLUGIN_INTERNAL = "PluginInternalError"  # also a resource that does not exist
    INVALID_PATH = "InvalidRequestPath"
    PLUGIN_NOT_FOUND = "PluginNotFound"
    JWE = "JweError"
    ADMIN = "AdminAuthAccess"
    HTTP = "HTTPFailed"
    POLICY_ENGINE = "PolicyEngineError"


class SessionLostError(ProtocolError):
    """A broker knows neither our session nor our token any more: what a new handshake mends, once."""


NOT_FOUND: Final = frozenset({Kind.INVALID_PATH, Kind.PLUGIN_NOT_FOUND})  # status 404, all others 401
_ERRORS: Final[dict[Kind, type[StrongroomError]]] = {
    Kind.ATTESTATION: VerifyError,
    Kind.TOKEN_NOT_FOUND: SessionLostError,
    Kind.TOKEN_VERIFIER: SessionLostError,
    Kind.POLICY_DENY: PolicyError,
    Kind.PLUGIN_INTERNAL: PolicyError,
    Kind.INVALID_PATH: ProtocolError,
    Kind.PLUGIN_NOT_FOUND: ProtocolError,
    Kind.JWE: ProtocolError,
    Kind.ADMIN: PolicyError,
    Kind.HTTP: TransportError,
    Kind.POLICY_ENGINE: TransportError,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A broker's no: the last part of its type URI, and its sentence."""

    type: str
    detail: str

    def pack(self) -> bytes:
        return pack_json({"type": TYPE_PREFIX + self.type, "detail": self.detail})

    @classmethod
    def parse(cls, body: bytes) -> "Refusal | None":
        """The refusal in an error body whatever its content type says, or None when there is none in it."""
        try:
            value = parse_json(body, "refusal", max_bytes=MAX_REFUSAL)
        except FormatError:
            return None
        if not isinstance(value, dict):
            return None
        kind, detail = value.get("type"), value.get("detail")
        if not isinstance(kind, str) or not isinstance(detail, str) or not kind.startswith(TYPE_PREFIX):
            return None
        return cls(kind.removeprefix(TYPE_PREFIX), detail)


def to_error(status: int, body: bytes, *, asked: str, version: str) -> StrongroomError:
    """The error a guest raises for any answer but 200. `asked` names the request, `version` is the one we speak."""
    if status == 429 or status >= 500:
        return TransportError(f"{asked}: status {status}{_saying(Refusal.parse(body))}")
    refusal = Refusal.parse(body)
    if refusal is None:
        return _problem(status, body, asked) or ProtocolError(
            f"{asked}: status {status} without a reason, want 200 or a key broker's refusal"
        )
    if VERSION_MISMATCH in refusal.detail:
        theirs = refusal.detail.partition(VERSION_MISMATCH)[2].split(" ", 1)[0].lstrip("=")
        return ProtocolError(f"{asked}: broker speaks protocol {sentence(theirs)}, we speak {version}")
    if refusal.type not in {*Kind}:
        return TransportError(
            f"{asked}: broker has trouble of its own, {sentence(refusal.type)}{_saying(refusal)}"
        )
    return _ERRORS[Kind(refusal.type)](f"{asked}: {sentence(refusal.type)}{_saying(refusal)}")


def _problem(status: int, body: bytes, asked: str) -> StrongroomError | None:
    """The error in a problem document (RFC 9457), as the brokers of other makers answer; None when it is none."""
    try:
        value = parse_json(body, "problem", max_bytes=MAX_REFUSAL, floats=True)
    except FormatError:
        return None
    if not isinstance(value, dict) or not isinstance(title := value.get("title"), str) or not title:
        return None
    detail = value.get("detail")
    said = f"{title}: {detail}" if isinstance(detail, str) and detail else title
    sentences = f"{asked}: status {status}: {sentence(said)}"
    if status in (401, 403):
        return VerifyError(sentences) if asked.endswith("/attest") else PolicyError(sentences)
    return PolicyError(sentences) if status == 404 else ProtocolError(sentences)


def _saying(refusal: Refusal | None) -> str:
    return f": {sentence(refusal.detail)}" if refusal is not None and refusal.detail else ""
