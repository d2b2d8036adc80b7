"""What the local REST of Confidential Containers may ask of the agent, which alone reaches broker and silicon.

    {"ask": "resource", "path"}                                {"content"}
    {"ask": "token"}                                           {"token", "key"}
    {"ask": "evidence", "report_data", "raw"}                  {"evidence"}
    {"ask": "devices", "nonce"}                                {"devices"}
    {"ask": "aael", "caller", "domain", "operation", "content"}      {}
    {"ask": "info"}                                            {"tee", "additional"}

One framed request a connection; bytes are base64url. An answer may also be {"error": sentence, "kind": Trouble}. What
that process lets through is not believed here: a resource has to be in some rule of userdata, and never is it a key of
this machine itself. The session with the broker is the one that this machine has.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from guest.aael import AAELLog
from guest.attester import Attester
from guest.coco.plan import UNIT, Plan
from guest.coco.rules import Right, Rules
from guest.coco.trouble import TIMEOUT, Trouble
from guest.connections import serve_each
from guest.keysock.plan import SHORT
from guest.peers import unit_of
from guest.record import sentence
from strongroom.broker.errors import Kind
from strongroom.broker.resource import ResourceURI
from strongroom.errors import (
    FormatError,
    MachineError,
    PolicyError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.evidence import aael
from strongroom.evidence.aael import AAELEntry
from strongroom.evidence.binding import SIZE
from strongroom.evidence.eventlog import Event
from strongroom.evidence.kbs import DEVICE_NONCE
from strongroom.evidence.kbs_json import pack_additional, to_json
from strongroom.host.release import BrokerSession
from strongroom.keys.jwk import PrivateKey
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame

EVENT: Final = "aael"  # of our own log: canonical JSON {"caller", "content", "domain", "operation"}
MAX_EVENTS: Final = 64  # of programs: the log has room for 256
MAX_CONTENT: Final = 4096  # bytes of what a program says in one
DEADLINE: Final = 20.0  # seconds for the broker: programs wait for 30
_MAX_REQUEST: Final = 64 << 10  # bytes

Session = Callable[[], Awaitable[BrokerSession]]
"""The session with the broker, ready to be asked."""


class NotAllowedError(PolicyError):
    """No rule of userdata has it."""


class Resources:
    """Answers the local REST, and nobody else."""

    def __init__(self, attester: Attester, *, who: Callable[[socket.socket], str] = unit_of) -> None:
        self._attester, self._who = attester, who
        self._rules, self._own = Rules(), frozenset[ResourceURI]()
        self._connect: Session | None = None
        self._log: AAELLog | None = None
        self._logging = asyncio.Lock()

    async def open(
        self,
        plan: Plan,
        connect: Session,
        *,
        own: frozenset[ResourceURI],
        log: AAELLog | None = None,
    ) -> None:
        """From now on, answer by this plan. `own` is never given to anybody; `log` gets what our own log has."""
        self._rules = plan.rules
        self._connect, self._own, self._log = connect, own, log
        await self._follow()

    async def serve(self, listener: socket.socket) -> None:
        """Answer until cancelled."""
        await serve_each(listener, self._connection, within=TIMEOUT)

    async def _connection(self, connection: socket.socket, _address: object) -> None:
        said: dict[str, JSON]
        try:
            request = await _request(connection)  # first: an answer to what is unread would be lost
            said = await self.reply(self._who(connection), request)
        except StrongroomError as error:
            said = {"error": sentence(error), "kind": trouble(error)}
        await asyncio.get_running_loop().sock_sendall(connection, frame(pack_json(said)))

    async def reply(self, unit: str, request: bytes) -> dict[str, JSON]:
        """The answer to one request of `unit`; raises StrongroomError."""
        if unit != UNIT:
            raise NotAllowedError(f"resources: asked by {unit}, want {UNIT}")
        match parse_json(request, "request", max_bytes=_MAX_REQUEST):
            case {"ask": "resource", "path": str(path), **rest} if not rest:
                return await self._resource(ResourceURI.from_segments(path))
            case {"ask": "token", **rest} if not rest:
                return await self._token()
            case {"ask": "evidence", "report_data": str(data), "raw": bool(raw), **rest} if not rest:
                return await self._evidence(unb64u(data, "report_data"), raw)
            case {"ask": "devices", "nonce": str(nonce), **rest} if not rest:
                return await self._devices(unb64u(nonce, "nonce"))
            case {
                "ask": "aael",
                "caller": str(caller),
                "domain": str(domain),
                "operation": str(operation),
                "content": str(content),
                **rest,
            } if not rest:
                return await self._extend(caller, AAELEntry(domain, operation, content))
            case {"ask": "info", **rest} if not rest:
                return {"tee": await self._attester.broker_tee(), "additional": []}
        raise FormatError(
            "request: want resource, token, evidence, devices, aael or info, and what belongs to it"
        )

    async def _resource(self, uri: ResourceURI) -> dict[str, JSON]:
        if uri in self._own:
            raise NotAllowedError(f"{uri}: it is a key of this machine itself, and for no program of it")
        if not self._rules.covers(f"{uri.repository}/{uri.type}/{uri.tag}"):
            raise NotAllowedError(f"{uri}: no rule of userdata lists it")
        session = await self._connected()
        with await session.get(uri, deadline_s=DEADLINE) as secret:
            return {"content": b64u(secret.reveal())}

    async def _token(self) -> dict[str, JSON]:
        self._require(Right.TOKEN)
        session = await self._connected()
        admission = await session.admission(deadline_s=DEADLINE)
        return {"token": admission.token, "key": _pem(admission.key)}

    async def _evidence(self, data: bytes, raw: bool) -> dict[str, JSON]:
        self._require(Right.RAW_EVIDENCE if raw else Right.EVIDENCE)
        most = SIZE if raw else SHORT
        if (size := len(data.rstrip(b"\0"))) > most:
            raise NotAllowedError(f"runtime data: {size} bytes, want at most {most}")
        return {"evidence": to_json(await self._attester.for_program(data[:SIZE], raw=raw))}

    async def _devices(self, nonce: bytes) -> dict[str, JSON]:
        self._require(Right.EVIDENCE)
        devices = await self._attester.devices(nonce[:DEVICE_NONCE].ljust(DEVICE_NONCE, b"\0"))
        return {"devices": pack_additional(devices, None)}

    async def _extend(self, caller: str, entry: AAELEntry) -> dict[str, JSON]:
        self._require(Right.AAEL)
        if entry.domain == aael.DOMAIN:
            raise NotAllowedError(f"aael entry: domain {aael.DOMAIN} is this machine's own")
        if len(entry.content.encode()) > MAX_CONTENT:
            raise FormatError(f"aael entry: content is over {MAX_CONTENT} bytes, want at most that")
        said: dict[str, JSON] = {
            "caller": caller,
            "domain": entry.domain,
            "operation": entry.operation,
            "content": entry.content,
        }
        payload = pack_json(said)
        async with self._logging:
            told = [event.payload for event in self._attester.log.events if event.name == EVENT]
            if payload not in told:  # said twice, it happened once
                if len(told) >= MAX_EVENTS:
                    raise PolicyError(f"aael: there are {MAX_EVENTS} of programs already, want no more")
                await self._attester.extend(EVENT, payload)
        await self._follow()
        return {}

    async def _follow(self) -> None:
        """Bring the log of their form, where there is one, up to our own."""
        if (log := self._log) is None:
            return
        async with self._logging:
            for event in self._attester.log.events:
                await asyncio.to_thread(log.append, _entry(event))

    def _require(self, right: Right) -> None:
        if not self._rules.allows(right):
            raise NotAllowedError(f"{right}: no rule of userdata allows it")

    async def _connected(self) -> BrokerSession:
        if self._connect is None:
            raise MachineError("resources: the boot has not come that far")
        return await self._connect()


def trouble(error: StrongroomError) -> Trouble:
    """Which kind of no this is."""
    if isinstance(error, NotAllowedError):
        return Trouble.NOT_ALLOWED
    if isinstance(error, PolicyError):
        return Trouble.MISSING if Kind.PLUGIN_INTERNAL in str(error) else Trouble.REFUSED
    if isinstance(error, VerifyError):
        return Trouble.NOT_GENUINE
    return Trouble.UNREACHABLE if isinstance(error, TransportError) else Trouble.FAILED


def _entry(event: Event) -> AAELEntry:
    """What our own log says, in their words: of what a program said, exactly that."""
    if event.name != EVENT:
        return aael.entry_of(event)
    match parse_json(event.payload, "aael event"):
        case {"domain": str(domain), "operation": str(operation), "content": str(content)}:
            return AAELEntry(domain, operation, content)
    raise FormatError("aael event: want caller, domain, operation and content")


def _pem(key: PrivateKey) -> str:
    """As agents of Confidential Containers write it."""
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


async def _request(connection: socket.socket) -> bytes:
    loop, reader = asyncio.get_running_loop(), FrameReader()
    while True:
        if not (data := await loop.sock_recv(connection, 4096)):
            raise FormatError("request: connection ended before a whole frame")
        if frames := reader.feed(data):
            return frames[0]
