"""What the key socket may ask of the agent, which alone reaches the silicon: one framed request a connection.

    {"ask": "log"}                                          {"events"}
    {"ask": "machine"}                                      {"tee", "report", "certificates", "events"}
    {"ask": "report", "report_data", "raw"}                 the same
    {"ask": "evidence", "caller", "nonce", "key"}           {"bundle"}
    {"ask": "gpus", "nonce"}                                {"devices"}
    {"ask": "event", "caller", "name", "payload"}           {"events"}

Bytes are base64url. An answer may also be {"error": sentence, "kind": exit code}. `caller` is whoever asked there: the
key socket looked it up, and it goes into the evidence. What the key socket lets through is not believed here: report
data of a shape of ours take a rule with raw_quote in userdata, and events come under one name, in a bounded number.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from guest.attester import Attester
from guest.connections import serve_each
from guest.keysock.plan import UNIT
from guest.machine.tsm import TSMReport
from guest.peers import unit_of
from guest.record import sentence
from strongroom.errors import FormatError, PolicyError, StrongroomError
from strongroom.evidence.binding import Purpose, application_challenge
from strongroom.evidence.eventlog import EventLog
from strongroom.host.evidence import MAX_BYTES
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame

EVENT: Final = "application"
MAX_EVENTS: Final = 64  # of applications: the log has room for 256
MAX_PAYLOAD: Final = 1024  # bytes
MAX_NAME: Final = 128  # characters
TIMEOUT: Final = 30.0  # seconds for a whole request: evidence of many GPUs takes some of them
_MAX_REQUEST: Final = 64 << 10  # bytes


class Applications:
    """Answers the key socket, and nobody else."""

    def __init__(self, attester: Attester, *, who: Callable[[socket.socket], str] = unit_of) -> None:
        self._attester, self._who = attester, who
        self.raw = False  # whether userdata has a rule with raw_quote
        self.quotes = True  # whether userdata lets programs have evidence over bytes they choose
        self.events = False  # whether programs may add to the event log

    async def serve(self, listener: socket.socket) -> None:
        """Answer until cancelled."""
        await serve_each(listener, self._connection, within=TIMEOUT)

    async def _connection(self, connection: socket.socket, _address: object) -> None:
        said: dict[str, JSON]
        try:
            request = await _request(connection)  # first: an answer to what is unread would be lost
            said = await self.reply(self._who(connection), request)
        except StrongroomError as error:
            said = {"error": sentence(error), "kind": error.exit_code}
        await asyncio.get_running_loop().sock_sendall(connection, frame(pack_json(said), max_frame=MAX_BYTES))

    async def reply(self, unit: str, request: bytes) -> dict[str, JSON]:
        """The answer to one request of `unit`; raises StrongroomError."""
        if unit != UNIT:
            raise PolicyError(f"applications: asked by {unit}, want {UNIT}")
        match parse_json(request, "request", max_bytes=_MAX_REQUEST):
            case {"ask": "log", **rest} if not rest:
                return self._log()
            case {"ask": "machine", **rest} if not rest:
                return _reported(*await self._attester.seen())
            case {"ask": "report", "report_data": str(data), "raw": bool(raw), **rest} if not rest:
                return await self._report(unb64u(data, "report_data"), raw)
            case {"ask": "evidence", "caller": str(caller), "nonce": str(nonce), "key": str(key), **rest} if (
                not rest
            ):
                return await self._evidence(caller, unb64u(nonce, "nonce"), unb64u(key, "key"))
            case {"ask": "gpus", "nonce": str(nonce), **rest} if not rest:
                devices = await self._attester.devices(unb64u(nonce, "nonce"))
                return {"devices": [device.to_json() for device in devices]}
            case {
                "ask": "event",
                "caller": str(caller),
                "name": str(name),
                "payload": str(payload),
                **rest,
            } if not rest:
                return await self._event(caller, name, unb64u(payload, "payload"))
        raise FormatError(
            "request: want log, machine, report, evidence, gpus or event, and what belongs to it"
        )

    def _log(self) -> dict[str, JSON]:
        return {"events": self._attester.log.to_json()}

    async def _report(self, data: bytes, raw: bool) -> dict[str, JSON]:
        if raw and not self.raw:
            raise PolicyError("report: no rule of userdata has raw_quote")
        return _reported(*await self._attester.over(data, raw=raw))

    async def _evidence(self, caller: str, nonce: bytes, key: bytes) -> dict[str, JSON]:
        bundle = await self._attester.evidence(
            purpose=Purpose.APPLICATION, challenge=application_challenge(caller, nonce), key=key
        )
        return {"bundle": bundle.to_json()}

    async def _event(self, caller: str, name: str, payload: bytes) -> dict[str, JSON]:
        if not self.events:
            raise PolicyError("event: userdata lets no program add to the log")
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME or len(payload) > MAX_PAYLOAD:
            raise FormatError(
                f"event: name of {len(name)} characters, payload of {len(payload)} bytes, want 1..{MAX_NAME} "
                f"printable ones and at most {MAX_PAYLOAD}"
            )
        said: dict[str, JSON] = {"caller": caller, "name": name, "payload": payload.hex()}
        await self._attester.extend(EVENT, pack_json(said), most=MAX_EVENTS)
        return self._log()


def _reported(made: TSMReport, log: EventLog) -> dict[str, JSON]:
    return {
        "tee": made.tee,
        "report": b64u(made.outblob),
        "certificates": b64u(made.auxblob),
        "events": log.to_json(),
    }


async def _request(connection: socket.socket) -> bytes:
    loop, reader = asyncio.get_running_loop(), FrameReader()
    while True:
        if not (data := await loop.sock_recv(connection, 4096)):
            raise FormatError("request: connection ended before a whole frame")
        if frames := reader.feed(data):
            return frames[0]
