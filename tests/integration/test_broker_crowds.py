"""The broker among thousands of connections, slow ones, and strangers who ask without end."""

import asyncio
import contextlib
import json
import resource
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from strongroom.broker.messages import Request
from strongroom.broker.rate import Rate
from strongroom.broker.tally import STRANGER
from strongroom.cli import broker_gate
from strongroom.cli.broker_certificate import write_certificate
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.cli.broker_front import Limits
from strongroom.cli.broker_server import serving
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.house import House
from tests.fakes.house import house

OFTEN: Final = Rate(per_second=1e6, burst=10**6)
PLAIN: Final = Endpoint(host="127.0.0.1", port=0, context=None)
SOCKETS: Final[list[socket.socket]] = []
HEALTH: Final = b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    with house(tmp_path / "b") as one:
        yield one
    while SOCKETS:
        SOCKETS.pop().close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def broker(made: House, endpoint: Endpoint = PLAIN, **limits: Any) -> AsyncIterator[int]:
    """A broker in this process; its port."""
    limits = {"handshakes": OFTEN, "requests": OFTEN, **limits}
    async with serving(made, endpoint, echo=lambda line: None, limits=Limits(**limits)) as ready:
        yield int(ready.url.rpartition(":")[2])


async def connected(port: int, address: str = "127.0.0.1") -> socket.socket:
    connection = socket.socket()
    SOCKETS.append(connection)
    connection.setblocking(False)
    connection.bind((address, 0))
    with contextlib.suppress(ConnectionResetError):  # there and gone
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


async def answered(connection: socket.socket, sent: bytes = HEALTH) -> bytes:
    """What comes back at once; nothing where the connection is over."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        try:
            if sent:
                await loop.sock_sendall(connection, sent)
            return await loop.sock_recv(connection, 1 << 16)
        except (ConnectionError, OSError):
            return b""


def told(made: House) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read(made.database, count=10_000)]


def test_thousands_of_connections_of_one_address_leave_room_for_another(made: House) -> None:
    async def crowd() -> Counter[bool]:
        async with broker(made, connections=500, of_address=100) as port:
            open_ones = [await connected(port) for _ in range(3000)]
            alive = Counter([bool(await answered(one)) for one in open_ones])
            stranger = await connected(port, "127.0.0.2")
            assert (await answered(stranger)).startswith(b"HTTP/1.1 200")
            return alive

    assert asyncio.run(crowd()) == {True: 100, False: 2900}
    away = [line for line in told(made) if line["verdict"] == "turned-away"]
    assert len(away) == STRANGER.network.burst + 1
    assert away[0]["rule"] == "too many connections from this address"
    assert away[-1]["rule"].startswith(f"{2900 - STRANGER.network.burst} more refusals in ")
    made.verify_audit()


def test_thousands_of_addresses_keep_nobody_out_for_long(
    made: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand silent connections, each from an address of its own: who comes next takes the oldest one's place."""
    monkeypatch.setattr(broker_gate, "SILENT", 0.0)

    async def crowd() -> None:
        async with broker(made, connections=300, of_address=10) as port:
            silent = [await connected(port, f"127.1.{n >> 8}.{n & 255}") for n in range(2000)]
            guest = await connected(port, "127.0.0.2")
            assert (await answered(guest)).startswith(b"HTTP/1.1 200")
            left = 0
            for one in silent:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    left -= one.recv(1) == b""
                left += 1
            assert left <= 300 + 1

    asyncio.run(crowd())


@pytest.mark.parametrize(
    ("sent", "limits", "answer"),
    [
        (b"", {"idle": 0.5}, b""),
        (b"GET /healthz HTTP/1.1\r\nHo", {"idle": 0.5}, b""),
        (
            b"POST /kbs/v0/auth HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\n\r\n{",
            {"body": 0.5},
            b"HTTP/1.1 408",
        ),
    ],
    ids=["silent", "head", "body"],
)
def test_hundreds_of_slow_ones_are_cut(
    made: House, sent: bytes, limits: dict[str, float], answer: bytes
) -> None:
    async def slow() -> None:
        async with broker(made, PLAIN, of_address=1000, **limits) as port:
            many = [await connected(port, f"127.2.0.{n % 50 + 1}") for n in range(400)]
            begun = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*(answered(one, sent) for one in many))
            assert {got[: len(answer)] for got in answers} == {answer}
            assert asyncio.get_running_loop().time() - begun < 30
            guest = await connected(port)
            assert (await answered(guest)).startswith(b"HTTP/1.1 200")

    asyncio.run(slow())
    if answer:
        assert any(line["rule"] == "POST auth: request timeout" for line in told(made))


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    """Of a broker with TLS."""
    (tmp_path / "t").mkdir()
    write_certificate(tmp_path / "t", ["127.0.0.1"], days=1)
    files = {"certificate": tmp_path / "t/tls.crt", "key": tmp_path / "t/tls.key"}
    return Endpoint.parse("127.0.0.1:0", plain=False, **files)


async def answered_through_tls(port: int, address: str) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, local_addr=(address, 0), ssl=ssl._create_unverified_context()
    )
    writer.write(HEALTH)
    try:
        async with asyncio.timeout(60):
            return await reader.read(1 << 16)
    finally:
        writer.transport.abort()


def test_silent_ones_before_tls_keep_nobody_out(made: House, endpoint: Endpoint) -> None:
    """Two addresses hold every place, and take each one anew that they lose."""
    lost = 0

    async def silent(port: int, address: str) -> None:
        nonlocal lost
        while True:
            one = await connected(port, address)
            await answered(one, b"")
            one.close()
            lost += 1

    async def crowd() -> None:
        async with (
            broker(made, endpoint, connections=20, of_address=10) as port,
            asyncio.TaskGroup() as all_of,
        ):
            crowd = [all_of.create_task(silent(port, f"127.3.0.{n % 2 + 1}")) for n in range(20)]
            for n in range(30):
                assert (await answered_through_tls(port, f"127.4.0.{n + 1}")).startswith(b"HTTP/1.1 200")
            for task in crowd:
                task.cancel()

    asyncio.run(crowd())
    assert lost >= 1


def test_who_never_begins_tls_is_cut(
    made: House, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_gate, "HANDSHAKE_TIMEOUT", 0.5)

    async def silent() -> None:
        async with broker(made, endpoint, of_address=300) as port:
            many = [await connected(port) for _ in range(300)]
            refused = await connected(port)
            assert await answered(refused, b"") == b""
            assert set(await asyncio.gather(*(answered(one, b"") for one in many))) == {b""}
            again = await connected(port)  # their places are free
            assert await answered(again, b"not TLS at all\r\n\r\n") != b"x"

    asyncio.run(silent())
    assert [line["rule"] for line in told(made) if line["verdict"] == "turned-away"] == [
        "too many connections from this address"
    ]


def test_garbage_without_end_fills_no_disk(made: House) -> None:
    """Every kind of refusal has a line, and ten thousand more are a few."""
    kinds = {
        b"POST /kbs/v0/auth": "RCAR handshake Auth failed",
        b"POST /kbs/v0/attest": "RCAR handshake Attest failed: no such session",
        b"GET /kbs/v0/resource/a/b/c": "no attested session and no token of this broker",
        b"GET /kbs/v0/resource/a": "resource",
        b"GET /kbs/v0/nebula-ca/x": "plugin nebula-ca is not here",
        b"GET /else": "invalid path",
        b"DELETE /kbs/v0/resource/a/b/c": "DELETE /kbs/v0/resource/a/b/c: resources are kept",
        b"POST /strongroom/v1/admin/list": "list: ",
    }

    async def flood() -> None:
        async with broker(made, of_address=1000) as port:
            one = await connected(port)
            for line in kinds:
                got = await answered(one, line + b" HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}")
                assert got[9:12] in {b"400", b"401", b"404"}
            request = b"POST /kbs/v0/attest HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}"
            for _ in range(500):
                assert b" 401 " in await answered(one, request)
            other = await connected(port, "127.0.0.2")  # is not held back by it
            body = Request("snp").pack()
            head = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n" % len(body)
            assert b" 200 " in await answered(other, head + body)

    asyncio.run(flood())
    lines = told(made)
    rules = [line["rule"] for line in lines if line["verdict"] == "turned-away"]
    for wanted in kinds.values():
        assert any(rule.startswith(wanted) for rule in rules), (wanted, rules)
    burst = STRANGER.network.burst
    assert burst + 1 <= len(rules) <= burst + 3
    assert " more refusals in " in rules[-1] and "no such session" in rules[-1]
    assert any(line["resource"] == "kbs:///a/b/c" for line in lines)
    made.verify_audit()
