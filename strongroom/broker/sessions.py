"""The broker's open handshakes: bounded in number and age, found by a secret in constant time.

Tables are keyed by the SHA-256 of what a guest presents, so that neither a lookup's timing nor a dump of the table
gives a cookie or a token away.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from strongroom.broker.dialect import CURRENT, Dialect
from strongroom.broker.proof import Proof
from strongroom.evidence.kbs import KBSTee
from strongroom.keys.jwk import PublicKey

LIFE: Final = timedelta(minutes=5)
MAX_SESSIONS: Final = 1024


@dataclass(frozen=True, slots=True)
class Attested:
    """What a session is once its evidence verified, for the rest of its life."""

    proof: Proof
    recipient: PublicKey
    rule: str  # what was found of the evidence, for the audit
    token: str = field(repr=False)
    body: bytes = field(default=b"", repr=False)  # the attestation as it came, to suspend the session with


@dataclass(slots=True)
class Session:
    nonce: str = field(repr=False)
    expires: datetime
    tee: KBSTee = "snp"
    dialect: Dialect = CURRENT
    attested: Attested | None = None


class Sessions:
    def __init__(self, *, life: timedelta = LIFE, max_sessions: int = MAX_SESSIONS) -> None:
        self._life = life
        self._max = max_sessions
        self._by_cookie: dict[bytes, Session] = {}  # oldest first: every session lives equally long
        self._by_token: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._by_cookie)

    def begin(
        self, cookie: str, nonce: str, now: datetime, *, tee: KBSTee = "snp", dialect: Dialect = CURRENT
    ) -> Session | None:
        """A new session, or None while the table is full: an old guest is never put out for a new one."""
        self._expire(now)
        if len(self._by_cookie) >= self._max:
            return None
        session = self._by_cookie[_digest(cookie)] = Session(nonce, now + self._life, tee, dialect)
        return session

    def find(self, cookie: str | None, now: datetime) -> Session | None:
        self._expire(now)
        return None if cookie is None else self._by_cookie.get(_digest(cookie))

    def find_by_token(self, token: str | None, now: datetime) -> Session | None:
        self._expire(now)
        return None if token is None else self._by_token.get(_digest(token))

    def end(self, cookie: str) -> None:
        self._forget(_digest(cookie))

    def attest(self, session: Session, attested: Attested) -> None:
        session.attested = attested
        self._by_token[_digest(attested.token)] = session

    def ongoing(self, now: datetime) -> list[tuple[bytes, Session]]:
        """Every session with the SHA-256 of its cookie, oldest first."""
        self._expire(now)
        return list(self._by_cookie.items())

    def resume(self, cookie_sha256: bytes, session: Session, now: datetime) -> bool:
        """Whether a session of an earlier process goes on. Before any other begins: they end in this order."""
        if session.expires <= now or len(self._by_cookie) >= self._max:
            return False
        self._by_cookie[cookie_sha256] = session
        if session.attested is not None:
            self._by_token[_digest(session.attested.token)] = session
        return True

    def _expire(self, now: datetime) -> None:
        while self._by_cookie:
            oldest = next(iter(self._by_cookie))
            if self._by_cookie[oldest].expires > now:
                return
            self._forget(oldest)

    def _forget(self, key: bytes) -> None:
        session = self._by_cookie.pop(key, None)
        if session is not None and session.attested is not None:
            self._by_token.pop(_digest(session.attested.token), None)


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
