"""Mirrors sidecars/proxy/engine/connection.py: engines that say too much, too little, or nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sidecars.proxy.engine.connection import EngineConnection, Process
from strongroom.errors import TransportError

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def against(
    directory: Path, *says: bytes, then_wait: bool = False
) -> Callable[[Callable[[EngineConnection], Awaitable[None]]], bytes]:
    """Run a test against an engine that answers every request with `says`; what the engine heard."""

    def run(test: Callable[[EngineConnection], Awaitable[None]]) -> bytes:
        heard = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                heard.extend(await reader.readuntil(b"\r\n\r\n"))
                for part in says:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if then_wait:
                    await reader.read()
            writer.close()

        async def main() -> None:
            server = await asyncio.start_unix_server(serve, directory / "e")
            engine = await EngineConnection.open(directory / "e")
            try:
                await test(engine)
            finally:
                engine.close()
                server.close()
                await asyncio.sleep(0.02)

        asyncio.run(main())
        return bytes(heard)

    return run


async def stream(engine: EngineConnection, **limits: float) -> list[bytes]:
    head = await engine.ask("POST", "/v1/completions", body=b"{}", request_id="abc", within=5)
    assert head.status == 200 and head.streams
    return [piece async for piece in engine.pieces(**limits)]


def test_a_large_request_is_sent_once_the_engine_reads_it(socket_dir: Path) -> None:
    reads = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reads.wait()
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(8 << 20)
        writer.write(CHUNKED + b"0\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(serve, socket_dir / "e")
        engine = await EngineConnection.open(socket_dir / "e")
        engine.put("POST", "/", body=b"x" * (8 << 20))
        with pytest.raises(TransportError, match="in time"):
            await engine.sent(within=0.05)
        reads.set()
        await engine.sent(within=5)
        assert (await engine.head(within=5)).status == 200
        engine.close()
        server.close()
        await asyncio.sleep(0.02)

    asyncio.run(main())


def test_an_answer_may_come_before_all_was_sent(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        engine.put("POST", "/", body=b"x" * (8 << 20))
        await engine.sent(within=5)
        assert (await engine.head(within=5)).status == 413 and await engine.whole() == b""
        assert engine.over and not engine.reusable

    against(socket_dir, b"HTTP/1.1 413 \r\ncontent-length: 0\r\n\r\n", then_wait=True)(test)


def test_a_connection_that_is_lost_at_once_leads_nowhere(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        seen = asyncio.Event()

        def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            seen.set()

        server = await asyncio.start_unix_server(serve, socket_dir / "e")
        with monkeypatch.context() as patch:
            patch.setattr("asyncio.BaseTransport.get_extra_info", lambda *_: None)  # as uvloop's then
            with pytest.raises(TransportError, match="closed"):
                await EngineConnection.open(socket_dir / "e")
        await seen.wait()
        server.close()
        await asyncio.sleep(0.02)

    asyncio.run(main())


def test_pieces_are_reads_not_chunks(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        assert await stream(engine) == [b"ab", b"c"]

    heard = against(socket_dir, CHUNKED, b"1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")(test)
    assert heard == (
        b"POST /v1/completions HTTP/1.1\r\nhost: engine\r\naccept: */*\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\nx-request-id: abc\r\nconnection: close\r\n\r\n"
    )


def test_what_came_before_a_break_is_delivered_first(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        await engine.ask("GET", "/", within=5)
        pieces = engine.pieces()
        assert await anext(pieces) == b"ab"
        with pytest.raises(TransportError, match="broke off"):
            await anext(pieces)

    against(socket_dir, CHUNKED + b"2\r\nab\r\n")(test)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"", "broke off|closed"),
        (b"nonsense\r\n\r\n", "broke HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "broke HTTP"),
        (OK + b"content-length: 5\r\n\r\nab", "broke off"),
        (CHUNKED + b"zz\r\n", "broke HTTP"),
        (OK + b"\r\nan answer that only a close would end", "nothing says where"),
    ],
)
def test_broken_answers_are_transport_errors(socket_dir: Path, says: bytes, why: str) -> None:
    async def test(engine: EngineConnection) -> None:
        with pytest.raises(TransportError, match=why):
            await stream(engine)

    against(socket_dir, says)(test)


def test_silence_is_a_transport_error(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        with pytest.raises(TransportError, match="no answer in"):
            await stream(engine, gap=0.05)

    against(socket_dir, CHUNKED, b"1\r\na\r\n", then_wait=True)(test)


def test_dripping_is_not_answering(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        await engine.ask("GET", "/", within=5)
        with pytest.raises(TransportError, match="no answer in"):
            await engine.whole(within=0.05)
        engine.close()
        await asyncio.sleep(0.05)

    against(socket_dir, CHUNKED, *[b"1\r\na\r\n"] * 50)(test)


@pytest.mark.guarantee("G9")
def test_no_other_process_is_talked_to(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        assert engine.process == Process(os.getpid(), os.getuid())
        (await EngineConnection.open(socket_dir / "e", process=engine.process)).close()
        for other in (Process(os.getpid() + 1, os.getuid()), Process(os.getpid(), os.getuid() + 1)):
            with pytest.raises(TransportError, match="another process"):
                await EngineConnection.open(socket_dir / "e", process=other)
        await asyncio.sleep(0.02)

    against(socket_dir, then_wait=True)(test)


def test_a_whole_answer_is_bounded(socket_dir: Path) -> None:
    async def test(engine: EngineConnection) -> None:
        await engine.ask("GET", "/", within=5)
        with pytest.raises(TransportError, match="larger than 3 bytes"):
            await engine.whole(most=3)

    against(socket_dir, OK + b"content-length: 4\r\n\r\nabcd")(test)


def test_between_two_requests_only_silence_is_right(socket_dir: Path) -> None:
    async def quiet(engine: EngineConnection) -> None:
        await engine.silence(0.01)

    async def ended(engine: EngineConnection) -> None:
        await engine.ask("GET", "/", within=5, keep=True)
        await engine.whole()
        engine.again()
        with pytest.raises(TransportError, match="it closed the connection"):
            await engine.silence(5)

    async def spoken(engine: EngineConnection) -> None:
        await engine.ask("GET", "/", within=5, keep=True)
        await engine.whole()
        engine.again()
        with pytest.raises(TransportError, match="spoke unasked"):
            await engine.silence(5)

    answer = OK + b"content-length: 0\r\n\r\n"
    for test, says in ((quiet, [b""]), (ended, [answer]), (spoken, [answer, b"x"])):
        against(socket_dir, *says, then_wait=test is quiet)(test)
        (socket_dir / "e").unlink(missing_ok=True)  # Python 3.13 removes it itself


def test_nobody_there_is_a_transport_error(socket_dir: Path) -> None:
    with pytest.raises(TransportError, match="engine: No such file"):
        asyncio.run(EngineConnection.open(socket_dir / "none"))
