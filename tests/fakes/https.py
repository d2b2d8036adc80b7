"""A TLS server of a few lines: it answers what a test tells it, and counts every byte that reaches it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from strongroom.cli.broker_certificate import CERTIFICATE, KEY, TLSCertificate, write_certificate

Respond = Callable[[bytes], bytes | None]
"""The head and body of a request to the bytes of an answer; None is silence."""


@dataclass
class Heard:
    """What has reached a server."""

    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    url: str = ""


def ok(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def certificate(directory: Path, *names: str) -> TLSCertificate:
    directory.mkdir(exist_ok=True)
    return write_certificate(directory, names or ("127.0.0.1", "localhost"), days=1)


@asynccontextmanager
async def listening(directory: Path, respond: Respond) -> AsyncIterator[Heard]:
    """A server with the certificate in `directory`, on a free port of 127.0.0.1."""
    heard = Heard()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        try:
            while request := await _request(reader):
                heard.requests.append(request)
                answer = respond(request)
                if answer is None:
                    await asyncio.sleep(3600)
                else:
                    writer.write(answer)
                    await writer.drain()
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
        heard.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield heard
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # the transports of ssl close in a later turn of the loop


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = await reader.readline()
        if not line:
            return b""
        head += line
    length = next(
        (int(h.split(b":")[1]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length")), 0
    )
    return head + (await reader.readexactly(length) if length else b"")
