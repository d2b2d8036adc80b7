"""Mirrors sidecars/proxy/admin.py; what the door answers there is in tests/integration/door/."""

import asyncio
import socket
from pathlib import Path

import pytest

from sidecars.proxy.admin import serve_admin, serve_metrics
from sidecars.proxy.metrics import CONTENT_TYPE
from strongroom.errors import MachineError


async def ask(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], line: str
) -> tuple[bytes, dict[str, str], bytes]:
    reader, writer = connection
    writer.write(f"{line} HTTP/1.1\r\nHost: door\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    headers = {name: value for name, _, value in (line.lower().partition(": ") for line in lines)}
    return first.split()[1].encode(), headers, body


def test_state_and_metrics_are_made_anew_for_each_answer(tmp_path: Path) -> None:
    asked: list[int] = []

    def count() -> bytes:
        asked.append(1)
        return b"x %d\n" % len(asked)

    async def story() -> None:
        path = tmp_path / "admin.sock"
        async with await serve_admin(path, lambda: {"state": "open"}, count):
            status, headers, body = await ask(await asyncio.open_unix_connection(path), "GET /state")
            assert (status, headers["content-type"], body) == (
                b"200",
                "application/json",
                b'{"state":"open"}',
            )
            for said in (b"x 1\n", b"x 2\n"):
                status, headers, body = await ask(await asyncio.open_unix_connection(path), "GET /metrics")
                assert (status, headers["content-type"], body) == (b"200", CONTENT_TYPE, said)
            for line in ("POST /state", "GET /", "GET /metrics?x", "GET /v1/models"):
                status, headers, body = await ask(await asyncio.open_unix_connection(path), line)
                assert (status, headers["content-type"]) == (b"404", "application/json")

    asyncio.run(story())


def test_the_loopback_port_has_the_metrics_and_nothing_else() -> None:
    async def story() -> None:
        async with await serve_metrics(0, lambda: b"x 1\n") as server:
            where = server.sockets[0].getsockname()
            assert where[0] == "127.0.0.1"
            status, _, body = await ask(await asyncio.open_connection(*where), "GET /metrics")
            assert (status, body) == (b"200", b"x 1\n")
            status, _, _ = await ask(await asyncio.open_connection(*where), "GET /state")
            assert status == b"404"

    asyncio.run(story())


def test_what_is_no_request_gets_an_answer_and_an_end(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "admin.sock"
        async with await serve_admin(path, lambda: None):
            status, _, _ = await ask(await asyncio.open_unix_connection(path), "nonsense")
            assert status == b"400"

    asyncio.run(story())


def test_a_socket_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"admin socket .*: no such file or directory"):
        asyncio.run(serve_admin(tmp_path / "absent" / "admin.sock", lambda: None))


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(MachineError, match=rf"metrics port {port}: "):
            asyncio.run(serve_metrics(port, lambda: b""))
