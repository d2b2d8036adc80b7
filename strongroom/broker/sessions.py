"""The broker's open handshakes: bounded in number and age, found by a secret in constant time.

Tables are keyed by the SHA-256 of what a guest presents, so that neither a lookup's timing nor a dump of the table
gives a cookie or a token away.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from strongroom.broker.dialect import CURRENT, Dialect
from strongroom.broker.proof import Proof
from strongroom.broker.rate import network_of
from strongroom.evidence.kbs import KBSTee
from strongroom.keys.jwk import PublicKey
from strongroom.wire.canonical import JSON

LIFE: Final = timedelta(minutes=5)  # once attested
WAITING: Final = timedelta(seconds=30)  # for evidence, and then for its verification
MAX_SESSIONS: Final = 4096
MAX_ATTESTED: Final = 3072  # of them: the rest are always there for those who wait
MAX_OF_PEER: Final = 64  # that are not attested
MAX_ATTESTED_OF_PEER: Final = 1024
MAX_KEPT: Final = 128 << 20  # bytes of attestations
MAX_KEPT_OF_PEER: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Attested:
    """What a session is once its evidence verified, for the rest of its life."""

    proof: Proof
    recipient: PublicKey
    rule: str  # what was found of the evidence, for the audit
    token: str = field(repr=False)
    body: bytes = field(default=b"", repr=False)  # the attestation, to suspend the session with
    claims: Mapping[str, JSON] = field(default_factory=dict, repr=False)  # of the token


@dataclass(slots=True)
class Session:
    nonce: str = field(repr=False)
    expires: datetime
    tee: KBSTee = "snp"
    dialect: Dialect = CURRENT
    attested: Attested | None = None
    peer: str = ""  # the network it began from
    attempting: bool = False  # its evidence is being looked at


class Sessions:
    """Those that wait for evidence cost nothing to begin: they are few for each network, live shortly, and give way.
    Those that are attested stay for their life, unless there are as many as there may be: then the oldest of the
    fullest network ends, and its guest makes another handshake. So no machine, however genuine, keeps others out.
    """

    def __init__(
        self,
        *,
        life: timedelta = LIFE,
        waiting: timedelta = WAITING,
        max_sessions: int = MAX_SESSIONS,
        max_attested: int = MAX_ATTESTED,
        max_of_peer: int = MAX_OF_PEER,
        max_attested_of_peer: int = MAX_ATTESTED_OF_PEER,
        max_kept: int = MAX_KEPT,
        max_kept_of_peer: int = MAX_KEPT_OF_PEER,
    ) -> None:
        self._life, self._patience = life, waiting
        self._max, self._max_of_peer = max_sessions, max_of_peer
        self._number = _Shares(max_attested, max_attested_of_peer)
        self._bytes = _Shares(max_kept, max_kept_of_peer)  # of attestations
        self._waiting: dict[bytes, Session] = {}  # by cookie, oldest first, as is the next
        self._attested: dict[bytes, Session] = {}
        self._by_token: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._attested)

    def begin(
        self,
        cookie: str,
        nonce: str,
        now: datetime,
        *,
        tee: KBSTee = "snp",
        dialect: Dialect = CURRENT,
        peer: str = "",
    ) -> Session | None:
        """A new session. None where this network has enough that wait, or the table is full of others."""
        self._expire(now)
        network = network_of(peer)
        if sum(one.peer == network for one in self._waiting.values()) >= self._max_of_peer:
            return None
        if len(self) >= self._max and not self._make_room():
            return None
        session = Session(nonce, now + self._patience, tee, dialect, peer=network)
        self._waiting[_digest(cookie)] = session
        return session

    def find(self, cookie: str | None, now: datetime) -> Session | None:
        self._expire(now)
        if cookie is None:
            return None
        key = _digest(cookie)
        return self._waiting.get(key) or self._attested.get(key)

    def find_by_token(self, token: str | None, now: datetime) -> Session | None:
        self._expire(now)
        return None if token is None else self._by_token.get(_digest(token))

    def end(self, cookie: str) -> None:
        self._forget(_digest(cookie))

    def attempt(self, cookie: str, now: datetime) -> None:
        """Give the session that waits the time its evidence takes; it does not give way meanwhile."""
        session = self._waiting.pop(_digest(cookie))
        session.attempting, session.expires = True, now + self._patience
        self._waiting[_digest(cookie)] = session

    def attest(self, cookie: str, attested: Attested, now: datetime) -> bool:
        """Whether the session goes on as attested, and others end for it if need be: not if it has ended."""
        self._expire(now)
        key, size = _digest(cookie), len(attested.body)
        if key not in self._waiting or not self._bytes.allows(size):
            return False
        session = self._waiting.pop(key)
        for shares, more in ((self._number, 1), (self._bytes, size)):
            while (fullest := shares.exceeded(session.peer, more)) is not None:
                self._forget(next(at for at, one in self._attested.items() if one.peer == fullest))
        session.attempting, session.expires = False, now + self._life
        self._enter(key, session, attested)
        return True

    def ongoing(self, now: datetime) -> list[tuple[bytes, Session]]:
        """Every session with the SHA-256 of its cookie, oldest first of either kind."""
        self._expire(now)
        return [*self._attested.items(), *self._waiting.items()]

    def resume(self, cookie_sha256: bytes, session: Session, now: datetime) -> bool:
        """Whether a session of an earlier process goes on. Before any other begins: they end in this order."""
        if session.expires <= now or len(self) >= self._max:
            return False
        session.peer = (
            session.peer or cookie_sha256.hex()
        )  # where it began is not known: nobody is its neighbour
        attested = session.attested
        if attested is None:
            self._waiting[cookie_sha256] = session
        elif self._number.has_room(session.peer, 1) and self._bytes.has_room(
            session.peer, len(attested.body)
        ):
            self._enter(cookie_sha256, session, attested)
        else:
            return False
        return True

    def _enter(self, key: bytes, session: Session, attested: Attested) -> None:
        session.attested = attested
        self._attested[key] = self._by_token[_digest(attested.token)] = session
        self._number.add(session.peer, 1)
        self._bytes.add(session.peer, len(attested.body))

    def _make_room(self) -> bool:
        """Put out the oldest that waits of the network that has most."""
        idle = [(key, one) for key, one in self._waiting.items() if not one.attempting]
        if not idle:
            return False
        fullest = Counter(one.peer for _, one in idle).most_common(1)[0][0]
        self._forget(next(key for key, one in idle if one.peer == fullest))
        return True

    def _expire(self, now: datetime) -> None:
        for table in (self._waiting, self._attested):
            while table:
                oldest = next(iter(table))
                if table[oldest].expires > now:
                    break
                self._forget(oldest)

    def _forget(self, key: bytes) -> None:
        session = self._waiting.pop(key, None) or self._attested.pop(key, None)
        if session is not None and session.attested is not None:
            self._by_token.pop(_digest(session.attested.token), None)
            self._number.add(session.peer, -1)
            self._bytes.add(session.peer, -len(session.attested.body))


class _Shares:
    """How much of something limited each network has."""

    def __init__(self, most: int, of_network: int) -> None:
        self._most, self._of_network = most, min(of_network, most)
        self._total = 0
        self._of: Counter[str] = Counter()

    def add(self, network: str, more: int) -> None:
        self._total += more
        self._of[network] += more
        if not self._of[network]:
            del self._of[network]

    def allows(self, more: int) -> bool:
        """Whether one session may have so much at all."""
        return more <= self._of_network

    def has_room(self, network: str, more: int) -> bool:
        return self._total + more <= self._most and self._of[network] + more <= self._of_network

    def exceeded(self, network: str, more: int) -> str | None:
        """The network that has to give something up before this one can have so much more."""
        if self.has_room(network, more):
            return None
        if self._of[network] + more > self._of_network:
            return network
        return max(self._of, key=lambda one: self._of[one] + (more if one == network else 0))


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
