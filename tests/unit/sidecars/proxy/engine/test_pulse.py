"""Mirrors sidecars/proxy/engine/pulse.py, against the engine's double."""

import asyncio
from pathlib import Path

import pytest

from sidecars.proxy.engine import pulse
from sidecars.proxy.engine.connection import EngineConnection
from sidecars.proxy.engine.pulse import Pulse
from tests.fakes.vllm import VLLM


def test_an_engine_lives_while_its_count_of_tokens_grows(socket_dir: Path) -> None:
    engine, path = VLLM(tokens=7), socket_dir / "engine"

    async def story() -> None:
        await engine.start(path)
        loop = asyncio.get_running_loop()
        connection = await EngineConnection.open(path)
        connection.close()
        heart = Pulse(path, connection.process)
        assert [await heart.last() for _ in range(3)] == [0.0, 0.0, 0.0]  # the first count is no news
        engine.tokens, before = 8, loop.time()
        beat = await heart.last()
        assert before <= beat <= loop.time()
        assert await heart.last() == beat
        await engine.die()
        assert await heart.last() == beat  # no news

    asyncio.run(asyncio.wait_for(story(), 30))


def test_what_an_answer_brought_counts_as_well(socket_dir: Path) -> None:
    engine, path, heard = VLLM(), socket_dir / "engine", [5.0]

    async def story() -> None:
        await engine.start(path)
        connection = await EngineConnection.open(path)
        connection.close()
        heart = Pulse(path, connection.process, lambda: heard[0])
        assert await heart.last() == 5.0
        engine.tokens = 1
        beat = await heart.last()
        assert beat > 5.0
        heard[0] = beat + 1
        assert await heart.last() == beat + 1
        await engine.die()

    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.parametrize(
    "answer",
    [b"", b"x", b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", b"HTTP/1.1 200 OK\r\n\r\n"],
)
def test_an_engine_that_counts_nothing_or_says_nothing_tells_no_news(
    socket_dir: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "WITHIN", 0.1)
    path = socket_dir / "engine"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_unix_server(serve, path)
        connection = await EngineConnection.open(path)
        heart = Pulse(path, connection.process, lambda: 3.0)
        assert [await heart.last(), await heart.last()] == [3.0, 3.0]
        connection.close()
        server.close()
        await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(story(), 30))
