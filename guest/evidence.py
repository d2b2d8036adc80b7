"""Local evidence service: a unit of ours asks for evidence over its own key, one framed request a connection.

    request   {"purpose": str, "challenge": base64url, "key": base64url of a DER SPKI}
    answer    {"bundle": {...}}  or  {"error": "one sentence"}

Which purposes a unit may ask for is fixed here. report_data is computed here and never taken from the peer. What the
door asks for clients of other people's forms (strongroom/host/foreign.py) is answered by guest/foreign.py.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from guest.attester import Attester
from guest.connections import serve_each
from guest.peers import unit_of
from guest.record import sentence
from strongroom.errors import FormatError, PolicyError, StrongroomError
from strongroom.evidence.binding import Purpose
from strongroom.host.evidence import MAX_BYTES
from strongroom.host.foreign import Foreign
from strongroom.wire.canonical import JSON, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame

SOCKET: Final = "/run/strongroom/evidence.sock"
DOOR_UNIT: Final = "strongroom-proxy.service"
RECEIVER_UNIT: Final = "strongroom-receive.service"
ALLOWED: Final = {
    DOOR_UNIT: frozenset({Purpose.RA_TLS, Purpose.CHANNEL, Purpose.RECEIPT_KEY, Purpose.SEALED_BODIES}),
    RECEIVER_UNIT: frozenset({Purpose.RA_TLS, Purpose.CHANNEL}),
}
TIMEOUT: Final = 10.0  # seconds for a whole request
_MAX_REQUEST: Final = 16 << 10  # bytes

Others = Callable[[str, Mapping[str, JSON]], Awaitable[dict[str, JSON]]]
"""Given the unit that asks and its question, the answer to what is not for evidence of our own."""


async def serve(listener: socket.socket, attester: Attester, others: Others | None = None) -> None:
    """Answer until cancelled."""

    async def answer(connection: socket.socket, _address: object) -> None:
        try:
            said = await reply(attester, unit_of(connection), await _request(connection), others)
        except StrongroomError as error:
            said = {"error": sentence(error)}
        await asyncio.get_running_loop().sock_sendall(connection, frame(pack_json(said), max_frame=MAX_BYTES))

    await serve_each(listener, answer, within=TIMEOUT)


async def reply(
    attester: Attester, unit: str, request: bytes, others: Others | None = None
) -> dict[str, JSON]:
    """The answer to one request of `unit`; raises PolicyError or FormatError."""
    value = parse_json(request, "evidence request", max_bytes=_MAX_REQUEST)
    if others is not None and isinstance(value, dict) and value.get("purpose") in tuple(Foreign):
        return await others(unit, value)
    if not isinstance(value, dict) or value.keys() != {"purpose", "challenge", "key"}:
        raise FormatError("evidence request: want exactly purpose, challenge and key")
    fields = [value[name] for name in ("purpose", "challenge", "key")]
    purpose, challenge, key = (field if isinstance(field, str) else "" for field in fields)
    if not key:
        raise FormatError("evidence request: key is empty, want a DER SPKI")
    if purpose not in ALLOWED.get(unit, frozenset()):
        raise PolicyError(f"evidence request: {unit} may not ask for purpose {purpose[:32]!r}")
    bundle = await attester.evidence(
        purpose=Purpose(purpose), challenge=unb64u(challenge, "challenge"), key=unb64u(key, "key")
    )
    return {"bundle": bundle.to_json()}


async def _request(connection: socket.socket) -> bytes:
    loop, reader = asyncio.get_running_loop(), FrameReader()
    while True:
        if not (data := await loop.sock_recv(connection, 4096)):
            raise FormatError("evidence request: connection ended before a whole frame")
        if frames := reader.feed(data):
            return frames[0]
