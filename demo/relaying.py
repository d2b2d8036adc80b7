"""Two attacks by somebody who holds genuine evidence of the running guest, but not its keys."""

import asyncio
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demo.site import Site
from guest.machine.tsm import TSM
from strongroom.broker.exchange import Collect, Exchange, Reply, Send
from strongroom.broker.messages import COOKIE
from strongroom.errors import MachineError, StrongroomError
from strongroom.evidence.binding import kbs_report_data
from strongroom.evidence.kbs import CompositeEvidence, KBSEvidence
from strongroom.host.fetch import Fetcher, Pin
from strongroom.host.tls import connect
from strongroom.ratls.certificate import build, extract

_TIMEOUT: Final = 20.0  # seconds


def replay_to_broker(made: Site) -> str:
    """Evidence made for one session, handed in with another session's cookie; the broker's sentence."""
    return asyncio.run(_replay(made))


async def _replay(made: Site) -> str:
    async with Fetcher(made.broker_url, Pin(ca_pem=made.broker_ca)) as fetcher:
        captured, _ = await _attestation(fetcher, made)
        other, exchange = await _attestation(fetcher, made)
        replayed = Send(captured.method, captured.path, captured.max_bytes, captured.body, other.cookie)
        try:
            exchange.receive(await _send(fetcher, replayed))
        except StrongroomError as error:
            return str(error)
        return "accepted"


async def _attestation(fetcher: Fetcher, made: Site) -> tuple[Send, Exchange]:
    """A genuine attestation message of this guest's machine, not sent yet, and the exchange that made it."""
    exchange = Exchange("snp", ec.generate_private_key(ec.SECP256R1()))
    asked = exchange.receive(await _send(fetcher, exchange.start()))
    if not isinstance(asked, Collect):
        raise MachineError("attack: the broker asked for no evidence")
    report = await asyncio.to_thread(TSM(made.tsm).report, kbs_report_data(asked.digest()))
    primary = KBSEvidence(tee="snp", report=report.outblob, certificates=report.auxblob)
    return exchange.evidence(CompositeEvidence(primary=primary)), exchange


async def _send(fetcher: Fetcher, send: Send) -> Reply:
    response = await fetcher.request(
        send.method,
        send.path,
        body=send.body or None,
        cookies=None if send.cookie is None else {COOKIE: send.cookie},
        max_bytes=send.max_bytes,
        timeout_s=_TIMEOUT,
    )
    return Reply(response.status, response.body, response.cookies.get(COOKIE))


@contextmanager
def serve_stolen_evidence(made: Site) -> Iterator[str]:
    """A TLS server on loopback whose certificate carries the door's evidence under another key; yields its URL."""
    context = _impostor(made)
    stop = threading.Event()
    ready: list[int] = []
    up = threading.Event()

    async def serve() -> None:
        async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await reader.read(1)
                writer.close()

        async with await asyncio.start_server(ignore, "127.0.0.1", 0, ssl=context) as server:
            ready.append(server.sockets[0].getsockname()[1])
            up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="impostor")
    thread.start()
    try:
        if not up.wait(_TIMEOUT):
            raise MachineError("attack: the impostor did not come up")
        yield f"https://127.0.0.1:{ready[0]}"
    finally:
        stop.set()
        thread.join(_TIMEOUT)


def _impostor(made: Site) -> ssl.SSLContext:
    address = urlsplit(made.url)
    with connect(str(address.hostname), address.port or 443, timeout=_TIMEOUT) as stream:
        genuine = x509.load_der_x509_certificate(stream.peer_certificate_der)
    key = ec.generate_private_key(ec.SECP256R1())
    stolen = build(
        key=key,
        bundle=extract(genuine.public_bytes(Encoding.DER)),
        names=["127.0.0.1"],
        not_before=genuine.not_valid_before_utc,
        lifetime=genuine.not_valid_after_utc - genuine.not_valid_before_utc,
        serial=secrets.randbits(120) + 1,
    )
    path = made.folder / "impostor.pem"
    path.write_bytes(
        x509.load_der_x509_certificate(stolen).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return _server_context(path)


def _server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    return context
