"""Client of the agent's evidence socket: one framed question, one framed answer, on AF_UNIX.

    question  {"purpose": text, "challenge": base64url, "key": base64url DER SPKI}
    answer    {"bundle": {...}} or {"error": "one sentence"}

The socket's owner and mode say who may ask; the agent alone computes report_data.
"""

import asyncio
import socket
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError, ProtocolError, TransportError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import MAX_PACKED, Bundle
from strongroom.wire.canonical import b64u, pack_json, parse_json
from strongroom.wire.framing import FrameReader, frame

TIMEOUT: Final = 30.0  # seconds; a report takes milliseconds, but the firmware serves one at a time
MAX_BYTES: Final = MAX_PACKED + 64 * 1024  # of an answer: a bundle with collateral, and its wrapping
_MAX_SENTENCE: Final = 200  # characters of the agent's sentence that we repeat
_READ: Final = 64 * 1024


def pack_question(*, purpose: Purpose, challenge: bytes, key: bytes) -> bytes:
    """The framed question. `key` is DER SPKI."""
    return frame(pack_json({"purpose": str(purpose), "challenge": b64u(challenge), "key": b64u(key)}))


def parse_answer(payload: bytes, *, purpose: Purpose, challenge: bytes) -> Bundle:
    """The bundle in an answer. MachineError repeats a refusal, ProtocolError is any other answer."""
    answer = parse_json(payload, "evidence socket", max_bytes=MAX_BYTES)
    match answer:
        case {"error": str(sentence), **rest} if not rest:
            printable = "".join(c if c.isprintable() else "?" for c in sentence[:_MAX_SENTENCE])
            raise MachineError(f"evidence socket: refused: {printable}")
        case {"bundle": raw, **rest} if not rest:
            bundle = Bundle.from_json(raw)
        case _:
            raise ProtocolError("evidence socket: the answer is neither a bundle nor an error")
    if bundle.purpose != purpose or bundle.challenge != challenge:
        raise ProtocolError("evidence socket: the bundle answers another question")
    return bundle


async def request_evidence(
    path: Path, *, purpose: Purpose, challenge: bytes, key: bytes, timeout: float = TIMEOUT
) -> Bundle:
    """Fresh evidence from the agent. TransportError when nobody answers within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(pack_question(purpose=purpose, challenge=challenge, key=key))
                await writer.drain()
                payload = await _one_frame(reader)
            finally:
                writer.close()
    except TimeoutError as error:
        raise TransportError(f"evidence socket {path}: no answer in {timeout:g} s") from error
    except OSError as error:
        raise TransportError(f"evidence socket {path}: {error.strerror}") from error
    return parse_answer(payload, purpose=purpose, challenge=challenge)


async def _one_frame(reader: asyncio.StreamReader) -> bytes:
    frames = FrameReader(max_frame=MAX_BYTES)
    while True:
        if payloads := frames.feed(await _more(reader)):
            return _only(payloads)


async def _more(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_READ)
    if not data:
        raise TransportError("evidence socket: closed before it answered")
    return data


def request_evidence_blocking(
    path: Path, *, purpose: Purpose, challenge: bytes, key: bytes, timeout: float = TIMEOUT
) -> Bundle:
    """As request_evidence(), without an event loop. `timeout` is the longest silence in seconds."""
    frames, payloads = FrameReader(max_frame=MAX_BYTES), list[bytes]()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(path))
            sock.sendall(pack_question(purpose=purpose, challenge=challenge, key=key))
            while not payloads:
                data = sock.recv(_READ)
                if not data:
                    raise TransportError("evidence socket: closed before it answered")
                payloads = frames.feed(data)
    except TimeoutError as error:
        raise TransportError(f"evidence socket {path}: no answer in {timeout:g} s") from error
    except OSError as error:
        raise TransportError(f"evidence socket {path}: {error.strerror}") from error
    return parse_answer(_only(payloads), purpose=purpose, challenge=challenge)


def _only(payloads: list[bytes]) -> bytes:
    if len(payloads) != 1:
        raise ProtocolError(f"evidence socket: {len(payloads)} answers, want one")
    return payloads[0]
