"""The broker on a socket: HTTP in front of strongroom.broker.desk, for as long as the process lives."""

import asyncio
import ipaddress
import re
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.desk import Answer, Desk
from strongroom.broker.errors import Kind, Refusal
from strongroom.broker.messages import COOKIE, MAX_ATTESTATION
from strongroom.broker.resource import PREFIX
from strongroom.broker.sessions import LIFE
from strongroom.errors import ConfigError, MachineError
from strongroom.host.keeper import ShelfKeeper
from strongroom.host.shelf import Shelf

BODY_TIMEOUT: Final = 20.0  # seconds for a request's body
KEEP_ALIVE: Final = 30.0  # seconds
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
_HEADERS: Final = {"Cache-Control": "no-store", "Server": "strongroom"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to listen, and as whom."""

    host: str
    port: int
    context: ssl.SSLContext | None  # None is plain HTTP, which only a loopback address may speak

    @classmethod
    def parse(cls, listen: str, *, certificate: Path, key: Path, plain: bool) -> Self:
        """Read HOST:PORT, and the TLS files unless `plain`. ConfigError for plain HTTP beyond this machine."""
        match = _LISTEN.fullmatch(listen)
        if match is None or int(match["port"]) > 65535:
            raise ConfigError(f"--listen: got {listen[:100]!r}, want HOST:PORT or [ADDRESS]:PORT")
        host = match["six"] or match["host"]
        if plain and not _is_loopback(host):
            raise ConfigError(
                f"--insecure-loopback: host is {host}, want a loopback address such as 127.0.0.1"
            )
        return cls(host=host, port=int(match["port"]), context=None if plain else _context(certificate, key))


@dataclass(frozen=True, slots=True)
class Ready:
    """A broker that answers now."""

    url: str
    plain: bool


class SystemRandomness:
    def octets(self, n: int) -> bytes:
        return secrets.token_bytes(n)

    def key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(curve)


async def serve(
    shelf: Shelf, endpoint: Endpoint, *, ready: Callable[[Ready], None], audit: Callable[[str], None]
) -> None:
    """Answer until SIGTERM or SIGINT, then finish what was begun and return."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(shelf, endpoint, audit=audit) as at:
        ready(at)
        await stop.wait()


@asynccontextmanager
async def serving(shelf: Shelf, endpoint: Endpoint, *, audit: Callable[[str], None]) -> AsyncIterator[Ready]:
    """A broker that answers while the context lasts. MachineError when it cannot listen there."""
    token_key = ec.generate_private_key(ec.SECP256R1())
    desk = Desk(ShelfKeeper(shelf), SystemRandomness(), token_key)
    front = _Front(desk, audit, secure=endpoint.context is not None)
    runner = web.AppRunner(
        front.application(), access_log=None, keepalive_timeout=KEEP_ALIVE, shutdown_timeout=5.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, endpoint.host, endpoint.port, ssl_context=endpoint.context)
        try:
            await site.start()
        except (OSError, UnicodeError) as error:  # the latter for a name with an empty or overlong label
            why = (getattr(error, "strerror", None) or "cannot listen").lower()
            raise MachineError(f"{endpoint.host}:{endpoint.port}: {why}") from error
        yield _ready(endpoint, runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Front:
    """HTTP to desk and back."""

    def __init__(self, desk: Desk, audit: Callable[[str], None], *, secure: bool) -> None:
        self._desk = desk
        self._audit = audit
        self._secure = secure

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_ATTESTATION)
        application.router.add_post(f"{PREFIX}/auth", self._auth)
        application.router.add_post(f"{PREFIX}/attest", self._attest)
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/{path:.*}", self._get)
        application.router.add_route("*", "/{path:.*}", self._other)
        return application

    async def _auth(self, request: web.Request) -> web.Response:
        return self._respond(self._desk.auth(await _body(request), peer=_peer(request), now=_now()))

    async def _attest(self, request: web.Request) -> web.Response:
        body, cookie = await _body(request), request.cookies.get(COOKIE)
        return self._respond(self._desk.attest(body, peer=_peer(request), cookie=cookie, now=_now()))

    async def _get(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self._respond(
            self._desk.get(
                request.rel_url.raw_path,
                peer=_peer(request),
                cookie=request.cookies.get(COOKIE),
                bearer=token if scheme.lower() == "bearer" else None,
                now=_now(),
            )
        )

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers=_HEADERS)

    async def _other(self, _request: web.Request) -> web.Response:
        detail = "resources are kept with `strongroom broker put`, not over the network"
        return self._respond(Answer(401, Refusal(Kind.ADMIN, detail).pack()))

    def _respond(self, answer: Answer) -> web.Response:
        if answer.audit is not None:
            self._audit(answer.audit.line())
        response = web.Response(
            status=answer.status, body=answer.body, content_type="application/json", headers=_HEADERS
        )
        if answer.cookie is not None:
            response.set_cookie(
                COOKIE,
                answer.cookie,
                path=PREFIX,
                max_age=int(LIFE.total_seconds()),
                secure=self._secure,
                httponly=True,
                samesite="Strict",
            )
        return response


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _peer(request: web.Request) -> str:
    return request.remote or "unknown"


def _now() -> datetime:
    return datetime.now(UTC)


def _ready(endpoint: Endpoint, port: int) -> Ready:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    plain = endpoint.context is None
    return Ready(f"{'http' if plain else 'https'}://{host}:{port}", plain)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        why = (
            "not a PEM certificate with its key"
            if isinstance(error, ssl.SSLError)
            else (error.strerror or "").lower()
        )
        raise ConfigError(f"{certificate}, {key}: {why}") from None
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
