"""A broker that does one thing wrong: a desk behind TLS, and a fault between it and the guest.

A fault gets the connection, the desk's honest answer, and the broker itself; what it writes is what the guest hears.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from strongroom.broker.desk import Desk
from strongroom.broker.errors import Refusal
from strongroom.cli.broker_certificate import CERTIFICATE, KEY
from tests.fakes.broker import respond_with
from tests.fakes.https import _request, ok

Step = Literal["auth", "attest", "resource"]
Act = Callable[[asyncio.StreamWriter, bytes, "Misbehaving"], Awaitable[None]]


@dataclass
class Misbehaving:
    """`fault` happens at one step of the exchange, the first `times` that it comes to it."""

    make: Callable[[], Desk]  # a broker as it starts: it knows no session
    step: Step = "auth"
    fault: Act | None = None
    times: int = 1 << 30
    url: str = ""
    requests: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget every session, as a broker does that keeps none."""
        self._respond = respond_with(self.make())

    @property
    def handshakes(self) -> int:
        return self.count("auth")

    def count(self, step: Step) -> int:
        return sum(_step(request) == step for request in self.requests)

    async def answer(self, writer: asyncio.StreamWriter, request: bytes) -> None:
        self.requests.append(request)
        honest = self._respond(request)
        if self.fault is None or _step(request) != self.step or self.count(self.step) > self.times:
            writer.write(honest)
        else:
            await self.fault(writer, honest, self)
        await writer.drain()


@asynccontextmanager
async def serving(directory: Path, broker: Misbehaving) -> AsyncIterator[Misbehaving]:
    """That broker with the certificate in `directory`, on a free port of 127.0.0.1."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing() and (request := await _request(reader)):
                await broker.answer(writer, request)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(handle(reader, writer)))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / CERTIFICATE, directory / KEY)
    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=context)
    try:
        broker.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield broker
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # the transports of ssl close in a later turn of the loop


def _step(request: bytes) -> Step:
    path = request.split(b" ", 2)[1]
    return "auth" if path.endswith(b"/auth") else "attest" if path.endswith(b"/attest") else "resource"


# What can go wrong


def says(answer: bytes) -> Act:
    """Another answer than the honest one."""

    async def act(writer: asyncio.StreamWriter, _honest: bytes, _broker: Misbehaving) -> None:
        writer.write(answer)

    return act


def status(line: str, headers: str = "", body: bytes = b"") -> Act:
    return says(ok(body, status=line, headers=headers))


def refuses(kind: str, detail: str = "because of this") -> Act:
    return says(ok(Refusal(kind, detail).pack(), status="401 Unauthorized"))


async def hangs_up(writer: asyncio.StreamWriter, _honest: bytes, _broker: Misbehaving) -> None:
    writer.transport.abort()


async def cuts(writer: asyncio.StreamWriter, honest: bytes, _broker: Misbehaving) -> None:
    writer.write(honest[: len(honest) - 10])
    await writer.drain()
    writer.close()


async def drips(writer: asyncio.StreamWriter, honest: bytes, _broker: Misbehaving) -> None:
    """One byte at a time: each of them comes well within any time limit of a read."""
    for at in range(len(honest)):
        writer.write(honest[at : at + 1])
        await writer.drain()
        await asyncio.sleep(0.02)


async def says_nothing(_writer: asyncio.StreamWriter, _honest: bytes, _broker: Misbehaving) -> None:
    await asyncio.sleep(3600)


async def never_ends(writer: asyncio.StreamWriter, _honest: bytes, _broker: Misbehaving) -> None:
    """A body without a length that goes on for as long as anybody reads."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b" " * 65536
    for _ in range(1000):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()


def is_huge(megabytes: int) -> Act:
    return says(ok(b" " * (megabytes << 20)))


def changes(change: Callable[[dict[str, Any]], object]) -> Act:
    """The honest answer with its JSON changed."""

    async def act(writer: asyncio.StreamWriter, honest: bytes, _broker: Misbehaving) -> None:
        head, _, body = honest.partition(b"\r\n\r\n")
        value = json.loads(body)
        change(value)
        cookie = next((f"{h.decode()}\r\n" for h in head.split(b"\r\n") if h.startswith(b"Set-Cookie")), "")
        line = head.split(b"\r\n")[0].decode().partition(" ")[2]
        writer.write(ok(json.dumps(value).encode(), status=line, headers=cookie))

    return act


async def loses_the_cookie(writer: asyncio.StreamWriter, honest: bytes, _broker: Misbehaving) -> None:
    lines = honest.split(b"\r\n")
    writer.write(b"\r\n".join(line for line in lines if not line.startswith(b"Set-Cookie")))


async def gives_another_cookie(writer: asyncio.StreamWriter, honest: bytes, _broker: Misbehaving) -> None:
    head, _, rest = honest.partition(b"kbs-session-id=")
    writer.write(head + b"kbs-session-id=" + b"0" * 32 + rest[32:])


async def starts_anew(writer: asyncio.StreamWriter, honest: bytes, broker: Misbehaving) -> None:
    """Answers, and is then another process that knows nobody."""
    writer.write(honest)
    broker.restart()
