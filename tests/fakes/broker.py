"""A broker without a socket: a keeper that decides as told, counted randomness, and both ends of an exchange joined."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from demo.silicon.mint import Silicon
from strongroom.broker.desk import Answer, Desk, Keeper, Question, Ruling
from strongroom.broker.dialect import CURRENT, Dialect
from strongroom.broker.exchange import Admission, Collect, Exchange, Reply, Send
from strongroom.broker.messages import COOKIE
from strongroom.broker.proof import Finding, Proof
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import VerifyError
from strongroom.evidence.initdata import InitData
from strongroom.evidence.kbs import KBSTee
from strongroom.keys.jwk import PrivateKey
from tests.fakes.https import ok
from tests.fakes.kbs import Collector, Machine

NOW: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
URI: Final = ResourceURI.parse("kbs:///default/model/llama")
VOLUME: Final = VolumeKey(key=bytes(range(100, 132)), root=bytes(range(32)), epoch=3)


class CountedRandomness:
    """Never the same twice, always the same sequence."""

    def __init__(self) -> None:
        self.calls = 0

    def octets(self, n: int) -> bytes:
        self.calls += 1
        return sha256(b"octets %d" % self.calls).digest()[:n]

    def key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        self.calls += 1
        return ec.derive_private_key(int.from_bytes(sha256(b"key %d" % self.calls).digest(), "big"), curve)


@dataclass
class ToldKeeper:
    """Says what a test tells it, and remembers what it was asked."""

    resources: dict[ResourceURI, bytes] = field(default_factory=lambda: {URI: VOLUME.pack()})
    forged: str = ""
    reasons: tuple[str, ...] = ()
    simulated: bool = False
    verified: list[Proof] = field(default_factory=list)
    judged: list[ResourceURI] = field(default_factory=list)

    def verify(self, proof: Proof, now: datetime) -> Finding:
        self.verified.append(proof)
        if self.forged:
            raise VerifyError(self.forged)
        return Finding(simulated=self.simulated, debug=False, cpu={"told": True})

    def judge(self, question: Question, proof: Proof, now: datetime) -> Ruling | None:
        self.judged.append(question.uri)
        if question.uri not in self.resources:
            return None
        return Ruling("policy 00", self.reasons, None if self.reasons else self.resources[question.uri])


def desk(keeper: Keeper, **options: Any) -> Desk:
    return Desk(keeper, CountedRandomness(), ec.derive_private_key(99, ec.SECP256R1()), **options)


def carry(desk: Desk, send: Send, *, peer: str = "192.0.2.1", now: datetime = NOW) -> Answer:
    """One request from a guest to the desk, without the wire between them."""
    if send.path.endswith("/auth"):
        return desk.auth(send.body, peer=peer, now=now)
    if send.path.endswith("/attest"):
        return desk.attest(send.body, peer=peer, cookie=send.cookie, now=now)
    return desk.get(send.path, peer=peer, cookie=send.cookie, bearer=None, now=now)


@dataclass
class Guest:
    """A machine and its side of an exchange."""

    collect: Collector
    tee: KBSTee = "snp"
    key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    uri: ResourceURI = URI
    dialect: Dialect = CURRENT
    hashes: tuple[str, ...] = ("sha384",)
    init_data: InitData | None = None
    answers: list[Answer] = field(default_factory=list)
    sent: list[Send] = field(default_factory=list)

    @classmethod
    def on(cls, machine: Silicon | Machine, **rest: Any) -> "Guest":
        collector = machine if isinstance(machine, Machine) else Machine(chip=machine)
        return cls(collector, collector.tee, **rest)

    def admitted(self, desk: Desk, *, tamper: Callable[[Send], Send] = lambda send: send) -> Admission:
        """What a handshake ends in, or the error the exchange raises."""
        exchange = Exchange(
            self.tee, self.key, hashes=self.hashes, dialect=self.dialect, init_data=self.init_data
        )
        asked = exchange.receive(self._carried(desk, tamper(exchange.start())))
        assert isinstance(asked, Collect)
        admission = exchange.receive(self._carried(desk, tamper(exchange.evidence(self.collect(asked)))))
        assert isinstance(admission, Admission)
        return admission

    def obtain(self, desk: Desk, *, tamper: Callable[[Send], Send] = lambda send: send) -> bytes:
        """The secret, or the error on the way to it."""
        admission = self.admitted(desk, tamper=tamper)
        send = admission.ask(self.uri)
        return admission.open(send, self._carried(desk, tamper(send)))

    def _carried(self, desk: Desk, send: Send) -> Reply:
        self.sent.append(send)
        answer = carry(desk, send)
        self.answers.append(answer)
        return Reply(answer.status, answer.body, answer.cookie or send.cookie)


def respond_with(desk: Desk) -> Callable[[bytes], bytes]:
    """The desk as tests.fakes.https wants it: a request's bytes to an answer's."""

    def respond(request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.decode().split("\r\n")[0].split(" ")
        cookie = head.decode().partition(f"{COOKIE}=")[2].split("\r\n")[0] or None
        answer = carry(desk, Send(method, path, 0, body, cookie))
        headers = f"Set-Cookie: {COOKIE}={answer.cookie}; Path=/kbs/v0\r\n" if answer.cookie else ""
        return ok(answer.body, status=f"{answer.status} X", headers=headers)

    return respond
