"""An open handshake as bytes, so that a broker can be started again between two requests of a guest.

Whoever holds these bytes speaks for the guest: they are kept sealed, read once and then gone. Evidence is carried as
the body it came in and read again by the same parser; that it verified is the word of whoever unsealed it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from strongroom.broker.dialect import DIALECTS, Dialect
from strongroom.errors import FormatError
from strongroom.evidence.kbs import KBSTee, tee_named
from strongroom.wire.canonical import JSON, b64, pack_json, parse_json, unb64

MAX_SUSPENDED: Final = 4 << 20  # bytes: an attest body in base64, and a token
_SUBJECT: Final = "suspended session"
_MEMBERS: Final = frozenset({"cookie_sha256", "expires", "nonce", "outcome", "tee", "version"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an attested session stands on."""

    body: bytes = field(repr=False)  # of the guest's POST /attest
    rule: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """One session. Neither cookie nor token table holds more than digests of what a guest presents."""

    cookie_sha256: bytes
    nonce: str = field(repr=False)
    expires: datetime
    tee: KBSTee
    dialect: Dialect
    outcome: Outcome | None  # None while its one attempt is still open

    def pack(self) -> bytes:
        outcome: JSON = None
        if self.outcome is not None:
            body, rule, token = self.outcome.body, self.outcome.rule, self.outcome.token
            outcome = {"body": b64(body), "rule": rule, "token": token}
        return pack_json(
            {
                "cookie_sha256": self.cookie_sha256.hex(),
                "expires": self.expires.astimezone(UTC).isoformat(),
                "nonce": self.nonce,
                "outcome": outcome,
                "tee": self.tee,
                "version": self.dialect.version,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """FormatError for anything but what `pack` writes."""
        value = parse_json(data, _SUBJECT, max_bytes=MAX_SUSPENDED)
        if not isinstance(value, dict) or value.keys() != _MEMBERS:
            raise FormatError(f"{_SUBJECT}: want an object of exactly {', '.join(sorted(_MEMBERS))}")
        tee, dialect = tee_named(_text(value, "tee")), DIALECTS.get(_text(value, "version"))
        if tee is None or dialect is None:
            raise FormatError(f"{_SUBJECT}: of a tee or a version that is not known here")
        try:
            expires = datetime.fromisoformat(_text(value, "expires"))
            cookie = bytes.fromhex(_text(value, "cookie_sha256"))
        except ValueError:
            raise FormatError(f"{_SUBJECT}: expires or cookie_sha256 is malformed") from None
        if expires.tzinfo is None or len(cookie) != 32:
            raise FormatError(f"{_SUBJECT}: want a time with a zone, and 32 bytes")
        return cls(
            cookie_sha256=cookie,
            nonce=_text(value, "nonce"),
            expires=expires,
            tee=tee,
            dialect=dialect,
            outcome=_outcome(value["outcome"]),
        )


def _outcome(value: JSON) -> Outcome | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"body", "rule", "token"}:
        raise FormatError(f"{_SUBJECT}: outcome: want null, or an object of body, rule, token")
    return Outcome(
        body=unb64(_text(value, "body"), _SUBJECT), rule=_text(value, "rule"), token=_text(value, "token")
    )


def _text(value: dict[str, JSON], name: str) -> str:
    text = value[name]
    if not isinstance(text, str):
        raise FormatError(f"{_SUBJECT}: {name}: want text")
    return text
