"""Broker side of a key release: requests in, answers and audit lines out (KBS protocol, RCAR).

What decides is fixed here: a nonce belongs to one session and is good for one attempt; evidence is verified before
a token exists; every resource is judged under its own policy each time it is asked for; what leaves is sealed to
the key that the evidence spoke for. Devices are verified under the device digest, the CPU under the one that what they
answered has entered. Sockets, files, the clock and randomness belong to the caller; roots and policies to the `Keeper`.

Status is 401 with a type URI for every refusal, 404 for a path, as the reference server does and clients expect.
"""

import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker import token
from strongroom.broker.audit import Audit, Outcome, turned_away
from strongroom.broker.dialect import CURRENT
from strongroom.broker.errors import NOT_FOUND, Kind, Refusal
from strongroom.broker.messages import HASH, Attestation, Challenge, Request, TokenReply, device_data
from strongroom.broker.proof import Finding, Proof
from strongroom.broker.rate import Buckets, Rate
from strongroom.broker.resource import PREFIX, ResourceURI
from strongroom.broker.sessions import Attested, Session, Sessions
from strongroom.broker.suspended import Outcome as Kept
from strongroom.broker.suspended import Suspended
from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.kbs import TEES, CompositeEvidence, Digests, tee_named
from strongroom.evidence.kbs_json import from_json, parse_additional
from strongroom.keys.jwe import CEK_BYTES, IV_BYTES, seal
from strongroom.keys.jwk import PublicKey, curve_of, parse_jwk
from strongroom.wire.canonical import JSON, b64, pack_json
from strongroom.wire.line import sentence

NONCE_BYTES: Final = 32
COOKIE_BYTES: Final = 16
AUTH_RATE: Final = Rate(per_second=2.0, burst=20)
MAX_PLAIN: Final = 64 << 10  # bytes of an attestation that is kept as it came
_AUTH_FAILED: Final = "RCAR handshake Auth failed: "
_ATTEST_FAILED: Final = "RCAR handshake Attest failed: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a guest with a valid token asks for."""

    uri: ResourceURI
    query: Mapping[str, str]  # of the request: `version` for another than the current one
    claims: Mapping[str, JSON]  # of its token, as a policy written for tokens reads them


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a resource's policy says of one proof. No payload means no."""

    rule: str  # names the policy and its verdict
    reasons: tuple[str, ...] = ()  # every failed check, found and wanted
    payload: bytes | None = field(default=None, repr=False)
    version: int | None = None  # of the resource, where it has several


class Keeper(Protocol):
    """Roots, policies and resources, as the desk asks for them."""

    def verify(self, proof: Proof, now: datetime) -> Finding:
        """What the evidence is. VerifyError unless genuine under a root, or a key, that some policy accepts."""

    def judge(self, question: Question, proof: Proof, now: datetime) -> Ruling | None:
        """The ruling under that resource's own roots and policy, or None when there is no such resource."""


class Randomness(Protocol):
    def octets(self, n: int) -> bytes: ...
    def key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, always JSON. `cookie` is set when a session began."""

    status: int
    body: bytes = field(repr=False)
    cookie: str | None = field(default=None, repr=False)
    audit: Audit | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of evidence, before anything is made of it."""

    answer: Answer
    peer: str
    attested: Attested | None = None


class Desk:
    """One broker. `token_key` is a P-256 key that lives as long as the desk: tokens end with it."""

    def __init__(
        self,
        keeper: Keeper,
        randomness: Randomness,
        token_key: ec.EllipticCurvePrivateKey,
        *,
        sessions: Sessions | None = None,
        rate: Rate = AUTH_RATE,
        versions: Collection[str] = (CURRENT.version,),
    ) -> None:
        """`versions` are those of the protocol that are answered (strongroom.broker.dialect)."""
        self._keeper = keeper
        self._random = randomness
        self._token_key = token_key
        self._sessions = Sessions() if sessions is None else sessions
        self._buckets = Buckets(rate)
        self._versions = frozenset(versions)

    def auth(self, body: bytes, *, peer: str, now: datetime) -> Answer:
        """POST /kbs/v0/auth: a session and its nonce."""
        if not self._buckets.take(peer, now):
            return _busy(429, "too many handshakes from this address", peer, now)
        try:
            request = Request.parse(body, self._versions)
        except StrongroomError as error:
            return _turn_away(Kind.ATTESTATION, f"{_AUTH_FAILED}{error}", peer, now)
        tee = tee_named(request.tee)
        if tee is None:  # `sample` is one: nothing signs what it says
            wanted = f"tee is {request.tee[:40]}, want one of {', '.join(TEES)}"
            return _turn_away(Kind.ATTESTATION, f"{_AUTH_FAILED}{wanted}", peer, now)
        if request.hashes and HASH not in request.hashes:
            lacking = f"guest does not support {HASH}, want it to"
            return _turn_away(Kind.ATTESTATION, f"{_AUTH_FAILED}{lacking}", peer, now)
        nonce, cookie = b64(self._random.octets(NONCE_BYTES)), self._random.octets(COOKIE_BYTES).hex()
        if self._sessions.begin(cookie, nonce, now, tee=tee, dialect=request.dialect, peer=peer) is None:
            return _busy(503, "too many open handshakes", peer, now)
        challenge = Challenge(nonce, takes_events=request.dialect.composite)
        return Answer(200, challenge.pack(), cookie)

    def attest(self, body: bytes, *, peer: str, cookie: str | None, now: datetime) -> Answer:
        """POST /kbs/v0/attest: a token for evidence that verifies; the session's one attempt either way."""
        session = self.begin_attempt(cookie, peer=peer, now=now)
        if isinstance(session, Answer) or cookie is None:
            return session if isinstance(session, Answer) else _lost(peer, now)
        return self.conclude(cookie, self.examine(session, body, peer=peer, now=now), now)

    def begin_attempt(self, cookie: str | None, *, peer: str, now: datetime) -> "Session | Answer":
        """The session whose evidence is to be examined, or the answer where there is nothing to examine.

        `attest` is this, `examine` and `conclude`, for whoever does the second elsewhere and keeps its line of the
        audit log before the third. Without a third the session's time runs out.
        """
        session = self._sessions.find(cookie, now)
        if session is None or cookie is None:
            return _lost(peer, now)
        if session.attested is not None:  # whatever came with it: the first evidence stands
            return Answer(200, TokenReply(session.attested.token).pack())
        if session.attempting:
            return _busy(503, "evidence of this session is being verified", peer, now)
        self._sessions.attempt(cookie, now)
        return session

    def abandon(self, session: Session) -> None:
        """The attempt was not made after all: no line of the audit log is of it."""
        session.attempting = False

    def examine(self, session: Session, body: bytes, *, peer: str, now: datetime) -> "Examined":
        """What comes of the evidence. It changes nothing here, so that it can be done on another thread."""
        proof: Proof | None = None
        try:
            attestation = Attestation.parse(body, dialect=session.dialect, nonce=session.nonce)
            proof = _proof(attestation, session)
            attested = self._attested(attestation, proof, body, now)
        except StrongroomError as error:
            audit = Audit(
                time=now, peer=peer, outcome=Outcome.REFUSED, rule=sentence(str(error)), proof=proof
            )
            return Examined(_refuse(Kind.ATTESTATION, f"{_ATTEST_FAILED}{error}", audit), peer)
        audit = Audit(time=now, peer=peer, outcome=Outcome.ATTESTED, rule=attested.rule, proof=proof)
        return Examined(Answer(200, TokenReply(attested.token).pack(), audit=audit), peer, attested)

    def conclude(self, cookie: str, examined: "Examined", now: datetime) -> Answer:
        """The answer, once its line is kept: from here on the session is attested, or over."""
        if examined.attested is None:
            self._sessions.end(cookie)
        elif not self._sessions.attest(cookie, examined.attested, now):
            return _busy(503, "the session ended meanwhile", examined.peer, now)
        return examined.answer

    def get(
        self,
        path: str,
        *,
        peer: str,
        cookie: str | None,
        bearer: str | None,
        now: datetime,
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        """GET of anything under /kbs/v0: a sealed resource, or the reason why not."""
        plugin, _, segments = path.removeprefix(f"{PREFIX}/").partition("/")
        if not path.startswith(f"{PREFIX}/") or not plugin:
            wanted = f"invalid path, want {PREFIX}/resource/repository/type/tag"
            return _turn_away(Kind.INVALID_PATH, wanted, peer, now)
        if plugin != "resource":
            wanted = f"plugin {plugin[:40]} is not here, want resource"
            return _turn_away(Kind.PLUGIN_NOT_FOUND, wanted, peer, now)
        try:
            uri = ResourceURI.from_segments(segments)
        except FormatError as error:
            return _turn_away(Kind.PLUGIN_INTERNAL, str(error), peer, now)
        session = self._sessions.find(cookie, now)
        if session is None or session.attested is None:
            session = self._sessions.find_by_token(bearer, now)
        if session is None or session.attested is None:
            unknown = "no attested session and no token of this broker"
            return _turn_away(Kind.TOKEN_NOT_FOUND, unknown, peer, now, uri)
        attested = session.attested
        try:  # it is our own word, found by what the guest showed: its signature was made or checked here before
            token.require_in_time(attested.claims, now)
        except StrongroomError as error:
            return _turn_away(Kind.TOKEN_VERIFIER, str(error), peer, now, uri)
        return self._release(Question(uri=uri, query=query, claims=attested.claims), attested, peer, now)

    def suspend(self, now: datetime) -> list[bytes]:
        """Every open session as bytes for `resume`, oldest first. They speak for guests: keep them sealed."""
        return [_suspended(cookie, session).pack() for cookie, session in self._sessions.ongoing(now)]

    def resume(self, sessions: Iterable[bytes], now: datetime) -> int:
        """Go on with what an earlier desk suspended, before any request; how many there were."""
        resumed = 0
        for packed in sessions:
            kept = Suspended.parse(packed)
            if kept.expires <= now:
                continue
            resumed += self._sessions.resume(kept.cookie_sha256, self._restored(kept, now), now)
        return resumed

    def _restored(self, kept: Suspended, now: datetime) -> Session:
        session = Session(kept.nonce, kept.expires, kept.tee, kept.dialect)
        if kept.outcome is not None:
            attestation = Attestation.parse(kept.outcome.body, dialect=kept.dialect, nonce=kept.nonce)
            session.attested = Attested(
                _proof(attestation, session),
                parse_jwk(dict(attestation.tee_pubkey), "tee-pubkey"),
                kept.outcome.rule,
                kept.outcome.token,
                kept.outcome.body,
                token.check(kept.outcome.token, self._token_key.public_key(), now=now),
            )
        return session

    def _release(self, question: Question, attested: Attested, peer: str, now: datetime) -> Answer:
        uri, proof = question.uri, attested.proof

        def audit(outcome: Outcome, rule: str, version: int | None = None) -> Audit:
            return Audit(
                time=now, peer=peer, outcome=outcome, rule=rule, resource=uri, proof=proof, version=version
            )

        try:
            ruling = self._keeper.judge(question, proof, now)
        except StrongroomError as error:  # ours to repair, and none of the peer's business
            rule = sentence(str(error))
            return _refuse(Kind.POLICY_ENGINE, f"{uri}: cannot be judged", audit(Outcome.DENIED, rule))
        if ruling is None:
            rule = f"resource {uri} does not exist"
            return _refuse(Kind.PLUGIN_INTERNAL, rule, audit(Outcome.DENIED, rule))
        if ruling.payload is None:
            rule = f"{ruling.rule}: {sentence('; '.join(ruling.reasons))}"
            return _refuse(
                Kind.POLICY_DENY,
                f"{uri}: {'; '.join(ruling.reasons)}",
                audit(Outcome.DENIED, rule, ruling.version),
            )
        body = pack_json(self._sealed(ruling.payload, attested.recipient))
        return Answer(200, body, audit=audit(Outcome.RELEASED, ruling.rule, ruling.version))

    def _sealed(self, payload: bytes, recipient: PublicKey) -> dict[str, JSON]:
        ephemeral = None
        if isinstance(recipient, ec.EllipticCurvePublicKey):
            ephemeral = self._random.key(curve_of(recipient).curve)
        cek, iv = self._random.octets(CEK_BYTES), self._random.octets(IV_BYTES)
        return seal(payload, recipient, ephemeral=ephemeral, cek=cek, iv=iv).to_json()

    def _attested(self, attestation: Attestation, proof: Proof, body: bytes, now: datetime) -> Attested:
        recipient = parse_jwk(dict(attestation.tee_pubkey), "tee-pubkey")
        finding = self._keeper.verify(proof, now)
        runtime = device_data(attestation.nonce, attestation.tee_pubkey)
        claims = token.claims(proof, finding, runtime=runtime, now=now)
        rule = "evidence is of INSECURE-SIMULATED silicon" if finding.simulated else "evidence is genuine"
        issued = token.issue(claims, self._token_key)
        return Attested(proof, recipient, rule, issued, _kept(attestation, body), claims)


def _proof(attestation: Attestation, session: Session) -> Proof:
    if not hmac.compare_digest(attestation.nonce.encode(), session.nonce.encode()):
        raise FormatError("nonce is not this session's, want evidence made for it")
    gpus, events = parse_additional(attestation.additional)
    return Proof(
        evidence=CompositeEvidence(
            primary=from_json(session.tee, attestation.primary), gpus=gpus, events=events
        ),
        digests=Digests(
            primary=attestation.digest(HASH),
            device=attestation.device_digest(HASH),
            hash=HASH,
            init_data=None if attestation.init_data is None else attestation.init_data.digest,
        ),
        init_data=attestation.init_data,
    )


def _kept(attestation: Attestation, body: bytes) -> bytes:
    """The attestation to suspend a session with, without what its sender put between where that may be much."""
    if len(body) <= MAX_PLAIN:
        return body
    try:
        return attestation.pack()
    except FormatError:  # a number that we read and do not write
        return body


def _suspended(cookie_sha256: bytes, session: Session) -> Suspended:
    attested = session.attested
    kept = None if attested is None else Kept(body=attested.body, rule=attested.rule, token=attested.token)
    return Suspended(
        cookie_sha256=cookie_sha256,
        nonce=session.nonce,
        expires=session.expires,
        tee=session.tee,
        dialect=session.dialect,
        outcome=kept,
    )


def _refuse(kind: Kind, detail: str, audit: Audit | None = None) -> Answer:
    # Some of the words are the peer's own: none comes back longer, or wilder, than a sentence.
    return Answer(404 if kind in NOT_FOUND else 401, Refusal(kind, sentence(detail)).pack(), audit=audit)


def _turn_away(kind: Kind, detail: str, peer: str, now: datetime, uri: ResourceURI | None = None) -> Answer:
    return _refuse(kind, detail, turned_away(peer, now, detail, uri))


def _lost(peer: str, now: datetime) -> Answer:
    return _turn_away(Kind.ATTESTATION, f"{_ATTEST_FAILED}no such session, or it has ended", peer, now)


def _busy(status: int, detail: str, peer: str, now: datetime) -> Answer:
    return Answer(status, Refusal(Kind.HTTP, detail).pack(), audit=turned_away(peer, now, detail))
