"""Mirrors strongroom/host/evidence.py: both faces of the client against real sockets."""

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import FormatError, MachineError, ProtocolError, TransportError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import MAX_BYTES as MAX_COLLATERAL
from strongroom.evidence.collateral import Collateral
from strongroom.host.evidence import parse_answer, request_evidence, request_evidence_blocking
from strongroom.wire.canonical import pack_json
from strongroom.wire.framing import frame
from tests.fakes.agent import Agent
from tests.fakes.exchange import events, spki, tls_key
from tests.fakes.silicon import silicon

KEY = spki(tls_key())
CHALLENGE = bytes(range(32))
Ask = Callable[[Path], Bundle]


def by_loop(path: Path, *, timeout: float = 10) -> Bundle:
    return asyncio.run(
        request_evidence(path, purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY, timeout=timeout)
    )


def blocking(path: Path, *, timeout: float = 10) -> Bundle:
    return request_evidence_blocking(
        path, purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY, timeout=timeout
    )


def test_the_agents_bundle_comes_back(socket_dir: Path) -> None:
    async def main() -> list[Bundle]:
        agent = Agent(silicon(), events())
        await agent.start(socket_dir / "e")
        found = [
            await request_evidence(socket_dir / "e", purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY),
            await asyncio.to_thread(blocking, socket_dir / "e"),
        ]
        await agent.stop()
        return found

    for bundle in asyncio.run(main()):
        assert (bundle.purpose, bundle.challenge, bundle.events) == (Purpose.CHANNEL, CHALLENGE, events())


@pytest.mark.parametrize("ask", [by_loop, blocking])
def test_a_bundle_may_be_as_large_as_its_collateral_makes_it(ask: Ask, socket_dir: Path) -> None:
    much = Collateral.of({"nvidia-rim/NV_GPU_DRIVER_1": bytes(MAX_COLLATERAL)})

    async def main() -> Bundle:
        agent = Agent(silicon(), events())
        make = agent.make
        agent.make = lambda **asked: replace(make(**asked), collateral=much)
        await agent.start(socket_dir / "e")
        try:
            if ask is blocking:
                return await asyncio.to_thread(blocking, socket_dir / "e")
            return await request_evidence(
                socket_dir / "e", purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY
            )
        finally:
            await agent.stop()

    assert asyncio.run(main()).collateral == much


def answering(path: Path, answer: bytes) -> threading.Thread:
    """Read a question, send `answer` byte by byte, close."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                for byte in answer:
                    sock.sendall(bytes([byte]))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("ask", [by_loop, blocking])
@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (frame(pack_json({"error": "policy: no"})), MachineError, "refused: policy: no"),
        (frame(pack_json({"error": "two\nlines" + "x" * 400})), MachineError, r"refused: two\?linesx{191}$"),
        (frame(pack_json({"bundle": {}, "more": 1})), ProtocolError, "neither a bundle nor an error"),
        (frame(pack_json([])), ProtocolError, "neither a bundle nor an error"),
        (frame(b"{"), FormatError, "not JSON"),
        (b"\xff\xff\xff\xff", FormatError, "frame"),
        (b"\0\0", TransportError, "closed before it answered"),
        (b"", TransportError, "closed before it answered"),
    ],
)
def test_other_answers(socket_dir: Path, ask: Ask, answer: bytes, kind: type[Exception], why: str) -> None:
    thread = answering(socket_dir / "e", answer)
    with pytest.raises(kind, match=why):
        ask(socket_dir / "e")
    thread.join()


@pytest.mark.parametrize("ask", [by_loop, blocking])
def test_nobody_there_is_a_transport_error(socket_dir: Path, ask: Ask) -> None:
    with pytest.raises(TransportError, match="No such file"):
        ask(socket_dir / "none")


@pytest.mark.parametrize("ask", [by_loop, blocking])
def test_silence_is_a_transport_error(socket_dir: Path, ask: Callable[..., Bundle]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_dir / "e"))
        listener.listen()
        with pytest.raises(TransportError, match="no answer in"):
            ask(socket_dir / "e", timeout=0.05)


@pytest.mark.guarantee("G7")
def test_an_answer_to_another_question_is_refused() -> None:
    agent = Agent(silicon(), events())
    question = pack_json({"purpose": "channel", "challenge": "AAECAwQFBgcICQoLDA0ODw", "key": ""})
    payload = pack_json(agent._reply(question))
    for purpose, challenge in ((Purpose.RA_TLS, bytes(range(16))), (Purpose.CHANNEL, CHALLENGE)):
        with pytest.raises(ProtocolError, match="answers another question"):
            parse_answer(payload, purpose=purpose, challenge=challenge)
