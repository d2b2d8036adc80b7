"""Client of the agent's socket for this process: the log, reports, bundles, GPUs, events. See guest/applications.py."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import (
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.host.evidence import MAX_BYTES
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame

SOCKET: Final = Path("/run/strongroom/applications.sock")
_KINDS: Final = {
    kind.exit_code: kind for kind in (FormatError, VerifyError, PolicyError, ProtocolError, MachineError)
}
_MAX_SENTENCE: Final = 300  # characters of the agent's sentence that we repeat


@dataclass(frozen=True, slots=True)
class Report:
    """What the silicon says over bytes of a caller, and the log of that moment."""

    tee: str
    report: bytes
    certificates: bytes
    log: EventLog


class Agent:
    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    async def log(self) -> EventLog:
        return _log(await self._ask({"ask": "log"}))

    async def machine(self) -> Report:
        """What this machine is, by a report over nothing."""
        return _report(await self._ask({"ask": "machine"}))

    async def report(self, report_data: bytes, *, raw: bool = False) -> Report:
        return _report(await self._ask({"ask": "report", "report_data": b64u(report_data), "raw": raw}))

    async def evidence(self, *, caller: str, nonce: bytes, key: bytes) -> Bundle:
        question: dict[str, JSON] = {
            "ask": "evidence",
            "caller": caller,
            "nonce": b64u(nonce),
            "key": b64u(key),
        }
        match await self._ask(question):
            case {"bundle": bundle}:
                return Bundle.from_json(bundle)
        raise ProtocolError("agent: the answer is no bundle")

    async def gpus(self, nonce: bytes) -> tuple[GPUEvidence, ...]:
        match await self._ask({"ask": "gpus", "nonce": b64u(nonce)}):
            case {"devices": list(devices)}:
                return tuple(GPUEvidence.from_json(device, "gpu") for device in devices)
        raise ProtocolError("agent: the answer is no list of gpus")

    async def event(self, *, caller: str, name: str, payload: bytes) -> EventLog:
        said: dict[str, JSON] = {"ask": "event", "caller": caller, "name": name, "payload": b64u(payload)}
        return _log(await self._ask(said))

    async def _ask(self, question: dict[str, JSON]) -> dict[str, JSON]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                writer.write(frame(pack_json(question)))
                await writer.drain()
                payload = await _one_frame(reader)
            finally:
                writer.close()
        except OSError as error:
            raise TransportError(f"agent: {(error.strerror or 'no answer').lower()}") from error
        answer = parse_json(payload, "agent", max_bytes=MAX_BYTES)
        if not isinstance(answer, dict):
            raise ProtocolError("agent: the answer is no object")
        if isinstance(sentence := answer.get("error"), str):
            raise _failure(sentence, answer.get("kind"))
        return answer


async def _one_frame(reader: asyncio.StreamReader) -> bytes:
    frames = FrameReader(max_frame=MAX_BYTES)
    while data := await reader.read(64 << 10):
        if payloads := frames.feed(data):
            return payloads[0]
    raise TransportError("agent: closed before it answered")


def _report(answer: dict[str, JSON]) -> Report:
    match answer:
        case {"tee": str(tee), "report": str(report), "certificates": str(table), "events": events}:
            return Report(
                tee, unb64u(report, "report"), unb64u(table, "certificates"), EventLog.from_json(events)
            )
    raise ProtocolError("agent: the answer is no report")


def _log(answer: dict[str, JSON]) -> EventLog:
    return EventLog.from_json(answer.get("events"))


def _failure(sentence: str, kind: JSON) -> StrongroomError:
    printable = "".join(c if c.isprintable() else "?" for c in sentence[:_MAX_SENTENCE])
    return _KINDS.get(kind if isinstance(kind, int) else 0, MachineError)(printable)
