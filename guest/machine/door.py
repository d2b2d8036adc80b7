"""What the door says of itself on its local socket: one small HTTP request."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError, ProtocolError
from strongroom.wire.canonical import parse_json

SOCKET: Final = Path("/run/strongroom-proxy/admin.sock")
_TIMEOUT: Final = 5.0  # seconds
_MAX_ANSWER: Final = 16 << 10  # bytes
_STATES: Final = ("starting", "certified", "open", "draining", "closed")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DoorState:
    state: str  # one of _STATES; only an open door lets anybody in
    spki_sha256: str

    @property
    def open(self) -> bool:
        return self.state == "open"


async def state(path: Path = SOCKET) -> DoorState:
    """The door's state; MachineError when nobody answers, ProtocolError when the answer is malformed."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_ANSWER)
            try:
                writer.write(b"GET /state HTTP/1.1\r\nhost: door\r\nconnection: close\r\n\r\n")
                answer = await reader.read(_MAX_ANSWER)
                while chunk := await reader.read(_MAX_ANSWER):
                    answer += chunk
                    if len(answer) > _MAX_ANSWER:
                        raise ProtocolError(f"door state: more than {_MAX_ANSWER} bytes")
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise MachineError(f"door state: {path} does not answer ({type(error).__name__})") from error
    return parse(answer)


def parse(answer: bytes) -> DoorState:
    head, split, body = answer.partition(b"\r\n\r\n")
    if not split or head.split()[1:2] != [b"200"]:
        raise ProtocolError("door state: not a 200 answer")
    value = parse_json(body, "door state", max_bytes=_MAX_ANSWER)
    if not isinstance(value, dict):
        raise ProtocolError("door state: not an object")
    name, spki = value.get("state"), value.get("spki_sha256")
    if name not in _STATES or not isinstance(spki, str) or not _SHA256.fullmatch(spki):
        raise ProtocolError(f"door state: want state ({' or '.join(_STATES)}) and spki_sha256 in hex")
    return DoorState(state=str(name), spki_sha256=spki)
