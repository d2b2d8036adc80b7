"""Guest side of a handshake: hello, challenge, evidence, token. Replies in, actions out.

    START --start()--> AWAIT_CHALLENGE --receive()--> COLLECTING --evidence()--> AWAIT_TOKEN --receive()--> DONE

The order is what binds: the key pair is there before the evidence, so the evidence speaks for this key and this nonce
alone; the devices are asked before the CPU, which speaks for what they answered. Sockets, clocks and the collection of
evidence belong to the caller (`strongroom.host.release`). An exchange is used once; after an error it is of no use and
a new one, with a new key, takes its place. What it ends in, an `Admission`, asks for as many resources as it likes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from strongroom.broker.dialect import CURRENT, Dialect
from strongroom.broker.ear import Lifetime, lifetime
from strongroom.broker.errors import to_error
from strongroom.broker.messages import (
    HASH,
    MAX_CHALLENGE,
    MAX_SEALED,
    MAX_TOKEN,
    Attestation,
    Challenge,
    Request,
    TokenReply,
    device_data,
)
from strongroom.broker.resource import PREFIX, ResourceURI
from strongroom.errors import FormatError, ProtocolError
from strongroom.evidence.binding import kbs_digest
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.initdata import InitData
from strongroom.evidence.kbs import DEVICE_NONCE, CompositeEvidence, KBSTee, old_name
from strongroom.evidence.kbs_json import pack_additional, to_json
from strongroom.evidence.kbs_legacy import to_legacy
from strongroom.keys.jwe import JWE, open_sealed
from strongroom.keys.jwk import PrivateKey, pack_jwk
from strongroom.wire.canonical import JSON, parse_json

State = Enum("State", "START AWAIT_CHALLENGE COLLECTING AWAIT_TOKEN DONE")

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


class Collect:
    """Ask the machine for evidence: its devices over `device_nonce`, and then its CPU over what `digest` makes of it.

    The event log is wanted where `takes_events` says so, as it is when the CPU is asked.
    """

    def __init__(
        self,
        challenge: Challenge,
        tee_pubkey: dict[str, JSON],
        *,
        dialect: Dialect = CURRENT,
        init_data: InitData | None = None,
    ) -> None:
        self.hash = challenge.hash
        self.takes_devices = dialect.composite
        self.takes_events = dialect.composite and challenge.takes_events
        self._challenge, self._tee_pubkey = challenge, tee_pubkey
        self._dialect, self._init_data = dialect, init_data
        device_digest = kbs_digest(device_data(challenge.nonce, tee_pubkey), challenge.hash)
        self.device_nonce = device_digest[:DEVICE_NONCE]

    def digest(self, gpus: Sequence[GPUEvidence] = (), events: EventLog | None = None) -> bytes:
        """What the CPU's report, or the TPM's quote, has to carry."""
        return self._attestation(None, gpus, events).digest(self.hash)

    def attestation(self, evidence: CompositeEvidence) -> Attestation:
        """The message with this evidence. ProtocolError for parts that this broker does not take."""
        make = to_legacy if self._dialect.old_names and not self._dialect.composite else to_json
        return self._attestation(make(evidence.primary), evidence.gpus, evidence.events)

    def _attestation(
        self, primary: JSON, gpus: Sequence[GPUEvidence], events: EventLog | None
    ) -> Attestation:
        if (gpus and not self.takes_devices) or (events is not None and not self.takes_events):
            raise ProtocolError(
                f"evidence: {len(gpus)} gpus, want none: a broker of protocol {self._dialect.version} "
                "takes no evidence of devices, and no event log"
            )
        return Attestation(
            nonce=self._challenge.nonce,
            tee_pubkey=self._tee_pubkey,
            primary=primary,
            additional=pack_additional(gpus, events),
            init_data=self._init_data,
            dialect=self._dialect,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a handshake ends in. It asks for resources until its token, or its session, ends."""

    token: str = field(repr=False)  # whoever holds it, and the key, speaks for the machine
    key: PrivateKey = field(repr=False)  # secrets are sealed to it
    cookie: str | None = field(repr=False)
    lifetime: Lifetime | None  # None where the token does not say

    def ask(self, resource: ResourceURI, *, version: int | None = None) -> Send:
        """The request for a resource, or for one `version` of it where the broker keeps several."""
        path = resource.path if version is None else f"{resource.path}?version={version:d}"
        return Send("GET", path, MAX_SEALED, cookie=self.cookie)

    def open(self, send: Send, reply: Reply) -> bytes:
        """The secret in the answer to `send`. A refusal is raised as the error it is for us (`errors.to_error`)."""
        _check(send, reply, CURRENT)
        try:
            jwe = JWE.from_json(parse_json(reply.body, "resource", max_bytes=MAX_SEALED))
        except FormatError as error:
            raise FormatError(f"{send.asked}: {error}") from None
        return open_sealed(jwe, self.key)


class Exchange:
    """One handshake. A call out of order raises ProtocolError and leaves the state as it was."""

    def __init__(
        self,
        tee: KBSTee,
        key: PrivateKey,
        *,
        hashes: Sequence[str] = (HASH,),
        dialect: Dialect = CURRENT,
        init_data: InitData | None = None,
    ) -> None:
        """`hashes` are those a broker may select. Any but sha384 gives up that no local caller can ask for its
        shape.
        """
        self.state = State.START
        self._tee, self._key = tee, key
        self._hashes, self._dialect, self._init_data = tuple(hashes), dialect, init_data
        self._tee_pubkey = pack_jwk(key.public_key())
        self._collect: Collect | None = None
        self._cookie: str | None = None
        self._sent = Send("", "", 0)

    def start(self) -> Send:
        self._at(State.START)
        tee = old_name(self._tee) if self._dialect.old_names else self._tee
        body = Request(tee, self._hashes, self._dialect).pack()
        return self._send(State.AWAIT_CHALLENGE, f"{PREFIX}/auth", MAX_CHALLENGE, body)

    def receive(self, reply: Reply) -> Collect | Admission:
        """The next action. A refusal is raised as the error it is for us (see `errors.to_error`)."""
        self._at(State.AWAIT_CHALLENGE, State.AWAIT_TOKEN)
        _check(self._sent, reply, self._dialect)
        if self.state is State.AWAIT_CHALLENGE:
            return self._challenged(reply)
        token = TokenReply.parse(reply.body).token
        self.state = State.DONE
        return Admission(token=token, key=self._key, cookie=self._cookie, lifetime=lifetime(token))

    def evidence(self, evidence: CompositeEvidence) -> Send:
        """Send what the machine answered to Collect."""
        self._at(State.COLLECTING)
        if evidence.primary.tee != self._tee or self._collect is None:
            raise ProtocolError(
                f"evidence: tee is {evidence.primary.tee}, and the broker was told {self._tee}"
            )
        body = self._collect.attestation(evidence).pack()
        return self._send(State.AWAIT_TOKEN, f"{PREFIX}/attest", MAX_TOKEN, body)

    def _challenged(self, reply: Reply) -> Collect:
        challenge, cookie = Challenge.parse(reply.body, self._hashes), reply.cookie
        if not cookie or len(cookie) > _MAX_COOKIE or not set(cookie) <= _COOKIE_CHARACTERS:
            raise ProtocolError(f"{self._sent.asked}: no usable session cookie in the answer")
        self._cookie = cookie
        self.state = State.COLLECTING
        self._collect = Collect(challenge, self._tee_pubkey, dialect=self._dialect, init_data=self._init_data)
        return self._collect

    def _send(self, to: State, path: str, max_bytes: int, body: bytes) -> Send:
        self.state = to
        self._sent = Send("POST", path, max_bytes, body, self._cookie)
        return self._sent

    def _at(self, *want: State) -> None:
        if self.state not in want:
            names = " or ".join(state.name for state in want)
            raise ProtocolError(f"key exchange: state is {self.state.name}, want {names}")


def _check(send: Send, reply: Reply, dialect: Dialect) -> None:
    if reply.status != 200:
        raise to_error(reply.status, reply.body, asked=send.asked, version=dialect.version)
    if len(reply.body) > send.max_bytes:
        raise ProtocolError(f"{send.asked}: answer is {len(reply.body)} bytes, want at most {send.max_bytes}")
