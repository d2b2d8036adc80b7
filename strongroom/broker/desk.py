"""Broker side of a key release: requests in, answers and audit lines out (KBS protocol 0.4.0, RCAR).

What decides is fixed here: a nonce belongs to one session and is good for one attempt; evidence is verified before
a token exists; every resource is judged under its own policy each time it is asked for; what leaves is sealed to
the key that the evidence spoke for. Sockets, files, the clock and randomness belong to the caller; roots and
policies to the `Keeper`.

Status is 401 with a type URI for every refusal, 404 for a path, as the reference server does and clients expect.
"""

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker import token
from strongroom.broker.audit import Audit, Outcome
from strongroom.broker.errors import NOT_FOUND, Kind, Refusal
from strongroom.broker.messages import HASH, TEE, Attestation, Challenge, Request, TokenReply
from strongroom.broker.proof import Proof
from strongroom.broker.rate import Buckets, Rate
from strongroom.broker.resource import PREFIX, ResourceURI
from strongroom.broker.sessions import Attested, Session, Sessions
from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.binding import kbs_digest
from strongroom.evidence.snp_json import from_kbs
from strongroom.keys.jwe import CEK_BYTES, IV_BYTES, seal
from strongroom.keys.jwk import PublicKey, curve_of, parse_jwk
from strongroom.wire.canonical import JSON, b64, pack_json
from strongroom.wire.line import sentence

NONCE_BYTES: Final = 32
COOKIE_BYTES: Final = 16
AUTH_RATE: Final = Rate(per_second=2.0, burst=20)
_AUTH_FAILED: Final = "RCAR handshake Auth failed: "
_ATTEST_FAILED: Final = "RCAR handshake Attest failed: "


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a resource's policy says of one proof. No payload means no."""

    rule: str  # names the policy and its verdict
    reasons: tuple[str, ...] = ()  # every failed check, found and wanted
    payload: bytes | None = field(default=None, repr=False)


class Keeper(Protocol):
    """Roots, policies and resources, as the desk asks for them."""

    def verify(self, proof: Proof, now: datetime) -> bool:
        """Whether the silicon is simulated. VerifyError unless genuine under a root that some policy accepts."""

    def judge(self, uri: ResourceURI, proof: Proof, now: datetime) -> Ruling | None:
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
    ) -> None:
        self._keeper = keeper
        self._random = randomness
        self._token_key = token_key
        self._sessions = Sessions() if sessions is None else sessions
        self._buckets = Buckets(rate)

    def auth(self, body: bytes, *, peer: str, now: datetime) -> Answer:
        """POST /kbs/v0/auth: a session and its nonce."""
        if not self._buckets.take(peer, now):
            return _busy(429, "too many handshakes from this address")
        try:
            request = Request.parse(body)
        except StrongroomError as error:
            return _refuse(Kind.ATTESTATION, f"{_AUTH_FAILED}{error}")
        if request.tee != TEE:
            return _refuse(Kind.ATTESTATION, f"{_AUTH_FAILED}tee is {request.tee[:40]}, want {TEE}")
        if request.hashes and HASH not in request.hashes:
            return _refuse(Kind.ATTESTATION, f"{_AUTH_FAILED}guest does not support {HASH}, want it to")
        nonce, cookie = b64(self._random.octets(NONCE_BYTES)), self._random.octets(COOKIE_BYTES).hex()
        if self._sessions.begin(cookie, nonce, now) is None:
            return _busy(503, "too many open handshakes")
        return Answer(200, Challenge(nonce).pack(), cookie)

    def attest(self, body: bytes, *, peer: str, cookie: str | None, now: datetime) -> Answer:
        """POST /kbs/v0/attest: a token for evidence that verifies; the session's one attempt either way."""
        session = self._sessions.find(cookie, now)
        if session is None or cookie is None:
            return _refuse(Kind.ATTESTATION, f"{_ATTEST_FAILED}no such session, or it has ended")
        if session.attested is not None:  # whatever came with it: the first evidence stands
            return Answer(200, TokenReply(session.attested.token).pack())
        proof: Proof | None = None
        try:
            attestation = Attestation.parse(body)
            proof = _proof(attestation, session)
            attested = self._attested(attestation, proof, now)
        except StrongroomError as error:
            self._sessions.end(cookie)
            audit = Audit(
                time=now, peer=peer, outcome=Outcome.REFUSED, rule=sentence(str(error)), proof=proof
            )
            return _refuse(Kind.ATTESTATION, f"{_ATTEST_FAILED}{error}", audit)
        self._sessions.attest(session, attested)
        audit = Audit(time=now, peer=peer, outcome=Outcome.ATTESTED, rule=attested.rule, proof=proof)
        return Answer(200, TokenReply(attested.token).pack(), audit=audit)

    def get(self, path: str, *, peer: str, cookie: str | None, bearer: str | None, now: datetime) -> Answer:
        """GET of anything under /kbs/v0: a sealed resource, or the reason why not."""
        plugin, _, segments = path.removeprefix(f"{PREFIX}/").partition("/")
        if not path.startswith(f"{PREFIX}/") or not plugin:
            return _refuse(Kind.INVALID_PATH, f"invalid path, want {PREFIX}/resource/repository/type/tag")
        if plugin != "resource":
            return _refuse(Kind.PLUGIN_NOT_FOUND, f"plugin {plugin[:40]} is not here, want resource")
        try:
            uri = ResourceURI.from_segments(segments)
        except FormatError as error:
            return _refuse(Kind.PLUGIN_INTERNAL, str(error))
        session = self._sessions.find(cookie, now)
        if session is None or session.attested is None:
            session = self._sessions.find_by_token(bearer, now)
        if session is None or session.attested is None:
            return _refuse(Kind.TOKEN_NOT_FOUND, "no attested session and no token of this broker")
        try:
            token.check(session.attested.token, self._token_key.public_key(), now=now)
        except StrongroomError as error:
            return _refuse(Kind.TOKEN_VERIFIER, str(error))
        return self._release(uri, session.attested, peer, now)

    def _release(self, uri: ResourceURI, attested: Attested, peer: str, now: datetime) -> Answer:
        proof = attested.proof

        def audit(outcome: Outcome, rule: str) -> Audit:
            return Audit(time=now, peer=peer, outcome=outcome, rule=rule, resource=uri, proof=proof)

        try:
            ruling = self._keeper.judge(uri, proof, now)
        except StrongroomError as error:  # ours to repair, and none of the peer's business
            rule = sentence(str(error))
            return _refuse(Kind.POLICY_ENGINE, f"{uri}: cannot be judged", audit(Outcome.DENIED, rule))
        if ruling is None:
            rule = f"resource {uri} does not exist"
            return _refuse(Kind.PLUGIN_INTERNAL, rule, audit(Outcome.DENIED, rule))
        if ruling.payload is None:
            rule = f"{ruling.rule}: {sentence('; '.join(ruling.reasons))}"
            return _refuse(
                Kind.POLICY_DENY, f"{uri}: {'; '.join(ruling.reasons)}", audit(Outcome.DENIED, rule)
            )
        body = pack_json(self._sealed(ruling.payload, attested.recipient))
        return Answer(200, body, audit=audit(Outcome.RELEASED, ruling.rule))

    def _sealed(self, payload: bytes, recipient: PublicKey) -> dict[str, JSON]:
        ephemeral = None
        if isinstance(recipient, ec.EllipticCurvePublicKey):
            ephemeral = self._random.key(curve_of(recipient).curve)
        cek, iv = self._random.octets(CEK_BYTES), self._random.octets(IV_BYTES)
        return seal(payload, recipient, ephemeral=ephemeral, cek=cek, iv=iv).to_json()

    def _attested(self, attestation: Attestation, proof: Proof, now: datetime) -> Attested:
        recipient = parse_jwk(dict(attestation.tee_pubkey), "tee-pubkey")
        simulated = self._keeper.verify(proof, now)
        claims = token.claims(proof, runtime=attestation.runtime_data(), simulated=simulated, now=now)
        rule = "evidence is of INSECURE-SIMULATED silicon" if simulated else "evidence is genuine"
        return Attested(proof, recipient, rule, token.issue(claims, self._token_key))


def _proof(attestation: Attestation, session: Session) -> Proof:
    if not hmac.compare_digest(attestation.nonce.encode(), session.nonce.encode()):
        raise FormatError("nonce is not this session's, want evidence made for it")
    if attestation.additional:
        raise FormatError(
            "additional_evidence: got device evidence, want none (this broker judges the CPU alone)"
        )
    report, certificates = from_kbs(attestation.primary)
    return Proof(report, certificates, kbs_digest(attestation.runtime_data(), HASH))


def _refuse(kind: Kind, detail: str, audit: Audit | None = None) -> Answer:
    # Some of the words are the peer's own: none comes back longer, or wilder, than a sentence.
    return Answer(404 if kind in NOT_FOUND else 401, Refusal(kind, sentence(detail)).pack(), audit=audit)


def _busy(status: int, detail: str) -> Answer:
    return Answer(status, Refusal(Kind.HTTP, detail).pack())
