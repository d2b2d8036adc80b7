"""Client of the agent's socket for this process, see guest/resources.py: one framed question a connection."""

import asyncio
from pathlib import Path
from typing import Final

from guest.coco.trouble import TIMEOUT as AGENTS
from guest.coco.trouble import Trouble
from strongroom.errors import ProtocolError, StrongroomError
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame
from strongroom.wire.line import sentence

SOCKET: Final = Path("/run/strongroom/resources.sock")
TIMEOUT: Final = AGENTS + 1.0  # seconds
_TROUBLES: Final = {str(trouble): trouble for trouble in Trouble}


class AnswerError(StrongroomError):
    """The agent's no, and which kind of no it is."""

    def __init__(self, said: str, trouble: Trouble) -> None:
        super().__init__(said)
        self.trouble = trouble


class Agent:
    """Whatever goes wrong is an AnswerError or a ProtocolError."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    async def resource(self, path: str) -> bytes:
        """The secret at REPOSITORY/TYPE/TAG."""
        match await self._ask({"ask": "resource", "path": path}):
            case {"content": str(content)}:
                return unb64u(content, "resource")
        raise ProtocolError("agent: the answer is no resource")

    async def token(self) -> tuple[str, str]:
        """A token of the broker and the key it speaks for, PEM."""
        match await self._ask({"ask": "token"}):
            case {"token": str(token), "key": str(key)}:
                return token, key
        raise ProtocolError("agent: the answer is no token")

    async def evidence(self, report_data: bytes, *, raw: bool) -> JSON:
        said: dict[str, JSON] = {"ask": "evidence", "report_data": b64u(report_data), "raw": raw}
        return (await self._ask(said)).get("evidence")

    async def devices(self, nonce: bytes) -> str:
        """Evidence of the devices as text, empty where there are none."""
        match await self._ask({"ask": "devices", "nonce": b64u(nonce)}):
            case {"devices": str(devices)}:
                return devices
        raise ProtocolError("agent: the answer is no evidence of devices")

    async def extend(self, *, caller: str, domain: str, operation: str, content: str) -> None:
        said: dict[str, JSON] = {"domain": domain, "operation": operation, "content": content}
        await self._ask({"ask": "aael", "caller": caller, **said})

    async def kind(self) -> str:
        """What the broker calls this machine."""
        match await self._ask({"ask": "info"}):
            case {"tee": str(tee)}:
                return tee
        raise ProtocolError("agent: the answer names no kind of machine")

    async def _ask(self, question: dict[str, JSON]) -> dict[str, JSON]:
        try:
            async with asyncio.timeout(TIMEOUT):
                payload = await self._exchanged(frame(pack_json(question)))
        except TimeoutError:
            raise AnswerError("the agent gave no answer in time", Trouble.UNREACHABLE) from None
        except OSError as error:
            said = f"the agent is not there: {(error.strerror or 'no answer').lower()}"
            raise AnswerError(said, Trouble.UNREACHABLE) from None
        match parse_json(payload, "agent"):
            case {"error": str(said), "kind": str(kind)}:
                raise AnswerError(sentence(said), _TROUBLES.get(kind, Trouble.FAILED))
            case dict(answer):
                return answer
        raise ProtocolError("agent: the answer is no object")

    async def _exchanged(self, question: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(question)
            await writer.drain()
            frames = FrameReader()
            while data := await reader.read(64 << 10):
                if payloads := frames.feed(data):
                    return payloads[0]
        finally:
            writer.close()
        raise AnswerError("the agent closed before it answered", Trouble.UNREACHABLE)
