"""Guest side of a key release: hello, challenge, evidence, token, secret. Replies in, actions out.

    START --start()--> AWAIT_CHALLENGE --receive()--> COLLECTING --evidence()--> AWAIT_TOKEN
          --receive()--> AWAIT_RESOURCE --receive()--> DONE

The order is what binds: the key pair is there before the evidence, so the evidence speaks for this key and this nonce
alone. Sockets, clocks and the collection of evidence belong to the caller (`strongroom.host.release`). An exchange is
used once; after an error it is of no use and a new one, with a new key, takes its place.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.errors import to_error
from strongroom.broker.messages import (
    HASH,
    MAX_CHALLENGE,
    MAX_SEALED,
    MAX_TOKEN,
    TEE,
    VERSION,
    Attestation,
    Challenge,
    Request,
    TokenReply,
    runtime_data,
)
from strongroom.broker.resource import PREFIX, ResourceURI
from strongroom.errors import FormatError, ProtocolError
from strongroom.evidence.binding import kbs_digest, kbs_report_data
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import to_kbs
from strongroom.keys.jwe import JWE, open_sealed
from strongroom.keys.jwk import pack_jwk
from strongroom.wire.canonical import parse_json

State = Enum("State", "START AWAIT_CHALLENGE COLLECTING AWAIT_TOKEN AWAIT_RESOURCE DONE")

_COOKIE_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_MAX_COOKIE: Final = 256


@dataclass(frozen=True, slots=True)
class Send:
    """One HTTP request. The session rides in the cookie, the answer may be `max_bytes` long."""

    method: str
    path: str
    max_bytes: int
    body: bytes = field(default=b"", repr=False)
    cookie: str | None = field(default=None, repr=False)

    @property
    def asked(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a Send. `cookie` is the value of kbs-session-id, if one was set."""

    status: int
    body: bytes = field(repr=False)
    cookie: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Collect:
    """Ask the machine for evidence over exactly these 64 bytes."""

    report_data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    secret: bytes = field(repr=False)  # never in a log or a traceback


class Exchange:
    """One handshake for one resource. A call out of order raises ProtocolError and leaves the state as it was."""

    def __init__(self, resource: ResourceURI, key: ec.EllipticCurvePrivateKey) -> None:
        self.state = State.START
        self._resource = resource
        self._key = key
        self._tee_pubkey = pack_jwk(key.public_key())
        self._challenge = Challenge("")
        self._cookie: str | None = None
        self._sent = Send("", "", 0)

    def start(self) -> Send:
        self._at(State.START)
        return self._send(State.AWAIT_CHALLENGE, "POST", f"{PREFIX}/auth", MAX_CHALLENGE, Request(TEE).pack())

    def receive(self, reply: Reply) -> Collect | Send | Done:
        """The next action. A refusal is raised as the error it is for us (see `errors.to_error`)."""
        self._at(State.AWAIT_CHALLENGE, State.AWAIT_TOKEN, State.AWAIT_RESOURCE)
        if reply.status != 200:
            raise to_error(reply.status, reply.body, asked=self._sent.asked, version=VERSION)
        if len(reply.body) > self._sent.max_bytes:
            raise ProtocolError(
                f"{self._sent.asked}: answer is {len(reply.body)} bytes, want at most {self._sent.max_bytes}"
            )
        if self.state is State.AWAIT_CHALLENGE:
            return self._challenged(reply)
        if self.state is State.AWAIT_TOKEN:
            TokenReply.parse(reply.body)  # the session carries us; the token is for those who pass it on
            return self._send(State.AWAIT_RESOURCE, "GET", self._resource.path, MAX_SEALED)
        return self._released(reply)

    def evidence(self, report: bytes, certificates: bytes) -> Send:
        """Send what the machine answered to Collect: the raw report and its certificate table (may be empty)."""
        self._at(State.COLLECTING)
        table = CertificateTable.parse(certificates)
        attestation = Attestation(
            nonce=self._challenge.nonce, tee_pubkey=self._tee_pubkey, primary=to_kbs(report, table)
        )
        return self._send(State.AWAIT_TOKEN, "POST", f"{PREFIX}/attest", MAX_TOKEN, attestation.pack())

    def _challenged(self, reply: Reply) -> Collect:
        cookie = reply.cookie
        if not cookie or len(cookie) > _MAX_COOKIE or not set(cookie) <= _COOKIE_CHARACTERS:
            raise ProtocolError(f"{self._sent.asked}: no usable session cookie in the answer")
        self._challenge, self._cookie = Challenge.parse(reply.body), cookie
        self.state = State.COLLECTING
        members = runtime_data(self._challenge.nonce, self._tee_pubkey, "")
        return Collect(kbs_report_data(kbs_digest(members, HASH)))

    def _released(self, reply: Reply) -> Done:
        try:
            jwe = JWE.from_json(parse_json(reply.body, "resource", max_bytes=MAX_SEALED))
        except FormatError as error:
            raise FormatError(f"{self._sent.asked}: {error}") from None
        secret = open_sealed(jwe, self._key)
        self.state = State.DONE
        return Done(secret)

    def _send(self, to: State, method: str, path: str, max_bytes: int, body: bytes = b"") -> Send:
        self.state = to
        self._sent = Send(method, path, max_bytes, body, self._cookie)
        return self._sent

    def _at(self, *want: State) -> None:
        if self.state not in want:
            names = " or ".join(state.name for state in want)
            raise ProtocolError(f"key exchange: state is {self.state.name}, want {names}")
