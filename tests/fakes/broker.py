"""A broker without a socket: a keeper that decides as told, counted randomness, and both ends of an exchange joined."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from demo.silicon.mint import Silicon
from strongroom.broker.desk import Answer, Desk, Ruling
from strongroom.broker.exchange import Collect, Done, Exchange, Reply, Send
from strongroom.broker.messages import COOKIE
from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import VerifyError
from tests.fakes.https import ok

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

    def verify(self, proof: Proof, now: datetime) -> bool:
        self.verified.append(proof)
        if self.forged:
            raise VerifyError(self.forged)
        return self.simulated

    def judge(self, uri: ResourceURI, proof: Proof, now: datetime) -> Ruling | None:
        self.judged.append(uri)
        if uri not in self.resources:
            return None
        return Ruling("policy 00", self.reasons, None if self.reasons else self.resources[uri])


def desk(keeper: ToldKeeper) -> Desk:
    return Desk(keeper, CountedRandomness(), ec.derive_private_key(99, ec.SECP256R1()))


def carry(desk: Desk, send: Send, *, peer: str = "192.0.2.1", now: datetime = NOW) -> Answer:
    """One request from a guest to the desk, without the wire between them."""
    if send.path.endswith("/auth"):
        return desk.auth(send.body, peer=peer, now=now)
    if send.path.endswith("/attest"):
        return desk.attest(send.body, peer=peer, cookie=send.cookie, now=now)
    return desk.get(send.path, peer=peer, cookie=send.cookie, bearer=None, now=now)


@dataclass
class Guest:
    """An exchange and the machine it runs on."""

    silicon: Silicon
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    uri: ResourceURI = URI
    answers: list[Answer] = field(default_factory=list)
    sent: list[Send] = field(default_factory=list)

    def obtain(self, desk: Desk, *, tamper: Callable[[Send], Send] = lambda send: send) -> bytes:
        """The secret, or the error the exchange raises."""
        exchange = Exchange(self.uri, self.key)
        action: Send | Collect | Done = exchange.start()
        while True:
            match action:
                case Send():
                    self.sent.append(tamper(action))
                    answer = carry(desk, self.sent[-1])
                    self.answers.append(answer)
                    action = exchange.receive(
                        Reply(answer.status, answer.body, answer.cookie or action.cookie)
                    )
                case Collect(report_data):
                    report = self.silicon.report(report_data)
                    action = exchange.evidence(report, self.silicon.certificates())
                case Done(secret):
                    return secret


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
