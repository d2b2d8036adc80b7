"""Mirrors strongroom/host/relay/listener.py; what it answers to whom is also in tests/integration/test_connect.py."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from strongroom.errors import ConfigError, StrongroomError, TransportError
from strongroom.host.relay.carrying import Asked, Carrying, Sink
from strongroom.host.relay.listener import Listener, parse_listen


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("127.0.0.2:0", ("127.0.0.2", 0)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("[::1]:8000", ("::1", 8000)),
    ],
)
def test_loopback_is_listened_on(text: str, where: tuple[str, int]) -> None:
    assert parse_listen(text) == where


@pytest.mark.parametrize(
    "text",
    ["", "8000", ":8000", "0.0.0.0:8000", "[::]:8000", "192.168.0.1:8000", "127.0.0.1", "127.0.0.1:65536",
     "127.0.0.1:x", "127.1:8000", "example.org:8000", "[::ffff:8.8.8.8]:80", " 127.0.0.1:8000", "127.0.0.1:8000\n"],
)  # fmt: skip
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(ConfigError, match="want a loopback address and a port"):
        parse_listen(text)


class Echo:
    """Answers every request, whole or streamed."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def run(self, sink: Sink) -> StrongroomError | None:
        if self._asked.target.endswith("stream"):
            sink.start(200, [("content-type", "text/event-stream")])
            sink.end()
        else:
            sink.whole(200, [("content-type", "application/json")], b"{}")
        return None

    def cancel(self) -> None:
        pytest.fail("nobody left")


def answers(heads: list[str], host: str = "127.0.0.1") -> list[str]:
    """What each head is answered with, by a listener at `host`."""

    async def ask(port: int, head: str) -> str:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET {head}\r\nConnection: close\r\n\r\n".replace("PORT", str(port)).encode())
        async with asyncio.timeout(30):
            found = (await reader.read()).decode()
        writer.close()
        return found

    async def work(executor: ThreadPoolExecutor) -> list[str]:
        carry: Any = Echo
        listener = Listener(cast("type[Carrying]", carry), failed=lambda _: None, executor=executor)
        port = await listener.open(host, 0)
        try:
            return [await ask(port, head) for head in heads]
        finally:
            await listener.close()

    with ThreadPoolExecutor(2) as executor:
        return asyncio.run(work(executor))


def statuses(heads: list[str], host: str = "127.0.0.1") -> list[int]:
    return [int(answer.split(" ", 2)[1]) for answer in answers(heads, host)]


def test_the_address_it_listens_on_is_a_name_of_its() -> None:
    at = "/v1/x HTTP/1.1\r\nHost: "
    assert statuses([at + "127.0.0.2:PORT", at + "localhost", at + "127.0.0.3"], "127.0.0.2") == [
        200,
        200,
        403,
    ]
    assert statuses([at + "127.0.0.2:PORT", at + "evil.example"]) == [403, 403]


@pytest.mark.parametrize(
    ("site", "status"),
    [
        ("cross-site", 403),
        ("same-site", 403),
        ("", 403),
        ("none, cross-site", 403),
        ("none", 200),
        ("same-origin", 200),
    ],
)
def test_what_another_site_asks_for_is_refused(site: str, status: int) -> None:
    assert statuses([f"/v1/x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: {site}"]) == [status]


def test_no_answer_is_taken_for_something_else() -> None:
    for answer in answers([f"/{path} HTTP/1.1\r\nHost: localhost" for path in ("v1/x", "v1/stream", "else")]):
        assert answer.count("x-content-type-options: nosniff\r\n") == 1


class Waiting(Echo):
    """Fails once its client has left, as a request does that is cancelled."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._cancelled = threading.Event()

    def run(self, sink: Sink) -> StrongroomError:
        sink.start(200, [])
        assert self._cancelled.wait(30)
        return TransportError("connect: the local client left")

    def cancel(self) -> None:
        self._cancelled.set()


def test_a_client_that_leaves_is_nothing_to_tell() -> None:
    failed = list[StrongroomError]()

    async def work(executor: ThreadPoolExecutor) -> None:
        carry: Any = Waiting
        listener = Listener(cast("type[Carrying]", carry), failed=failed.append, executor=executor)
        reader, writer = await asyncio.open_connection("127.0.0.1", await listener.open("127.0.0.1", 0))
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        async with asyncio.timeout(30):
            assert await reader.read() == b"", "no end"
        writer.close()
        await listener.close()

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(work(executor))
    assert not failed
