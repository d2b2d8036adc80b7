"""Mirrors sidecars/proxy/engine/pool.py: connections that are kept, that end while they are, and that are not ours."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sidecars.proxy.engine.connection import Process
from sidecars.proxy.engine.pool import EnginePool, UnreachableError
from strongroom.errors import TransportError

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Engine:
    """Answers each request with `says`; notes how many connections and requests there were."""

    def __init__(self) -> None:
        self.says: list[
            bytes
        ] = []  # one for each request; ANSWER once there are none. Empty: the connection ends
        self.connections = self.requests = 0
        self.ended = asyncio.Event()
        self._asked = asyncio.Condition()
        self.writers: list[asyncio.StreamWriter] = []

    async def heard(self, count: int) -> None:
        async with self._asked:
            await self._asked.wait_for(lambda: self.requests >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n{}"):
                async with self._asked:
                    self.requests += 1
                    self._asked.notify_all()
                answer = self.says.pop(0) if self.says else ANSWER
                if not answer:
                    break
                writer.write(answer)
        writer.close()
        self.ended.set()


def with_pool(directory: Path, test: Callable[[EnginePool, Engine], Awaitable[None]], **limits: int) -> None:
    async def main() -> None:
        engine = Engine()
        server = await asyncio.start_unix_server(engine.serve, directory / "e")
        pool = EnginePool(directory / "e", Process(os.getpid(), os.getuid()), **limits)
        try:
            await test(pool, engine)
        finally:
            pool.close()
            server.close()
            for writer in engine.writers:
                writer.close()
            await asyncio.sleep(0.02)

    asyncio.run(main())


async def ask(pool: EnginePool, *, within: float = 5.0) -> None:
    engine, head = await pool.ask("/v1/completions", body=b"{}", request_id="ab", within=within)
    assert head.status == 200 and await engine.whole() == b"{}"
    pool.give_back(engine)


def test_a_connection_serves_request_after_request(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        for _ in range(5):
            await ask(pool)
        assert (engine.connections, engine.requests) == (1, 5)

    with_pool(socket_dir, test)


def test_one_that_the_engine_closes_while_it_is_idle_is_not_used(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        await ask(pool)
        engine.writers[0].close()
        await asyncio.sleep(0.02)
        await ask(pool)
        assert (engine.connections, engine.requests) == (2, 2)

    with_pool(socket_dir, test)


def test_one_that_it_closes_without_a_byte_is_made_up_for_once(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecars.proxy.engine.pool.IDLE", 0.0)

    async def test(pool: EnginePool, engine: Engine) -> None:
        await ask(pool)
        engine.says = [b""]
        await ask(pool)
        assert (engine.connections, engine.requests) == (2, 3)
        engine.says = [b"", b""]
        with pytest.raises(TransportError, match="closed"):
            await ask(pool)
        assert (engine.connections, engine.requests) == (3, 5)

    with_pool(socket_dir, test)


def test_one_that_was_used_just_now_is_not_made_up_for(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        await ask(pool)
        engine.says = [b""]
        with pytest.raises(TransportError, match="closed"):
            await ask(pool)
        assert (engine.connections, engine.requests) == (1, 2)

    with_pool(socket_dir, test)


def test_one_is_read_from_again_however_it_was_given_back(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        for _ in range(2):
            used, _ = await pool.ask("/", body=b"{}", request_id="", within=5)
            await used.whole()
            used.hold()
            pool.give_back(used)
        assert (engine.connections, engine.requests) == (1, 2)

    with_pool(socket_dir, test)


def test_a_large_request_takes_no_connection_that_may_be_gone(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecars.proxy.engine.pool.IDLE", 0.0)
    monkeypatch.setattr("sidecars.proxy.engine.pool.LARGE", 1)
    sent: list[int] = []

    async def test(pool: EnginePool, engine: Engine) -> None:
        for _ in range(2):
            used, _ = await pool.ask("/", body=b"{}", request_id="", within=5, sent=lambda: sent.append(1))
            await used.whole()
            pool.give_back(used)
        assert (engine.connections, engine.requests, len(sent)) == (2, 2, 2)

    with_pool(socket_dir, test)


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\ncontent-le"])
def test_a_request_that_was_answered_with_a_byte_is_not_sent_again(socket_dir: Path, begun: bytes) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        await ask(pool)
        engine.says = [begun, b""]
        asking = asyncio.create_task(ask(pool))
        await engine.heard(2)
        await asyncio.sleep(0.02)
        engine.writers[0].close()
        with pytest.raises(TransportError, match="broke off"):
            await asking
        assert (engine.connections, engine.requests) == (1, 2)

    with_pool(socket_dir, test)


def test_silence_is_not_made_up_for(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        await ask(pool)
        engine.says = [b"H"]
        with pytest.raises(TransportError, match="no answer in time"):
            await ask(pool, within=0.05)
        assert (engine.connections, engine.requests) == (1, 2)
        await engine.ended.wait()  # what it was computing is aborted

    with_pool(socket_dir, test)


def test_one_with_an_answer_that_is_not_over_ends(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        engine.says = [ANSWER[:-1], ANSWER[:-2].replace(b"OK\r\n", b"OK\r\nconnection: close\r\n") + b"{}"]
        for _ in range(2):
            used, _ = await pool.ask("/", body=b"{}", request_id="", within=5)
            if engine.requests == 2:
                await used.whole()
            pool.give_back(used)
        await ask(pool)
        assert engine.connections == 3

    with_pool(socket_dir, test)


def test_one_that_speaks_unasked_is_not_used(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        engine.says = [ANSWER + ANSWER]
        await ask(pool)
        await ask(pool)
        engine.writers[1].write(ANSWER)
        await asyncio.sleep(0.02)
        await ask(pool)
        assert engine.connections == 3

    with_pool(socket_dir, test)


def test_a_request_that_nobody_waits_for_any_more_frees_the_engine(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        engine.says = [b"H"]
        asking = asyncio.create_task(ask(pool))
        await engine.heard(1)
        asking.cancel()
        await engine.ended.wait()
        assert asking.cancelled() or await asyncio.wait([asking])

    with_pool(socket_dir, test)


def test_only_so_many_are_kept(socket_dir: Path) -> None:
    async def test(pool: EnginePool, engine: Engine) -> None:
        used = [(await pool.ask("/", body=b"{}", request_id="", within=5))[0] for _ in range(4)]
        for one in used:
            await one.whole()
            pool.give_back(one)
        assert [one.reusable for one in used] == [False, False, True, True]
        await ask(pool)
        assert engine.connections == 4

    with_pool(socket_dir, test, most=2)


@pytest.mark.guarantee("G9")
def test_nobody_else_is_asked(socket_dir: Path) -> None:
    async def test(_: EnginePool, engine: Engine) -> None:
        other = EnginePool(socket_dir / "e", Process(os.getpid() + 1, os.getuid()))
        with pytest.raises(UnreachableError, match="another process"):
            await ask(other)
        await engine.ended.wait()
        nowhere = EnginePool(socket_dir / "nowhere", Process(os.getpid(), os.getuid()))
        with pytest.raises(UnreachableError):
            await ask(nowhere)
        assert engine.requests == 0

    with_pool(socket_dir, test)
