"""Mirrors guest/connections.py, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guest import connections
from guest.connections import serve_each
from strongroom.errors import PolicyError


async def echo(connection: socket.socket, _address: object) -> None:
    loop = asyncio.get_running_loop()
    said = await loop.sock_recv(connection, 64)
    if said == b"defect":
        raise KeyError("0123456789abcdef")
    if said == b"refuse":
        raise PolicyError("peer: no\nno")
    await loop.sock_sendall(connection, said)


@asynccontextmanager
async def served(path: Path, *, within: float = 10.0) -> AsyncIterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        task = asyncio.create_task(serve_each(listener, echo, within=within))
        yield
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])


async def ask(path: Path, said: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(said)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_a_stalled_peer_holds_up_nobody(tmp_path: Path) -> None:
    async def exchange() -> bytes:
        async with served(tmp_path / "s"):
            _, stalled = await asyncio.open_unix_connection(tmp_path / "s")
            answer = await ask(tmp_path / "s", b"hello")
            stalled.close()
            await stalled.wait_closed()
            return answer

    assert asyncio.run(exchange()) == b"hello"


def test_a_stalled_peer_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 1)

    async def exchange() -> tuple[bytes, bytes]:
        async with served(tmp_path / "s", within=0.05):
            reader, stalled = await asyncio.open_unix_connection(tmp_path / "s")
            answer = await ask(tmp_path / "s", b"hello")
            dropped = await reader.read()
            stalled.close()
            await stalled.wait_closed()
            return answer, dropped

    assert asyncio.run(exchange()) == (b"hello", b"")


@pytest.mark.guarantee("G11")
def test_one_failed_answer_ends_one_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def exchange() -> list[bytes]:
        async with served(tmp_path / "s"):
            return [await ask(tmp_path / "s", said) for said in (b"defect", b"refuse", b"hello")]

    assert asyncio.run(exchange()) == [b"", b"", b"hello"]
    assert capsys.readouterr().out == "unexpected KeyError\npeer: no no\n"
