"""The only outgoing HTTP: to one peer whose key or authority is known, every answer bounded in size and time.

The peer is checked before the first byte of HTTP is written, on every connection. Nothing is followed, decompressed,
cached, proxied or retried here. Who the peer is not, is a VerifyError; that it cannot be reached, a TransportError.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from strongroom.errors import ConfigError, ProtocolError, StrongroomError, TransportError, VerifyError

MAX_COOKIES: Final = 8
_CHUNK: Final = 64 << 10
_PIECE: Final = 256 << 10
_FAREWELL: Final = 1.0  # seconds
_VISIBLE: Final = re.compile("[!-~]+")  # parsers of URLs drop a line break in silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Whom a connection has to end at: a certificate for the very host, or a key. Exactly one of the three.

    `system` is for services open to the public, and only where what they answer is signed: whoever deceives the
    system's authorities can read the questions, and keep the answers from us.
    """

    ca_pem: str | None = None  # the certificate's only authorities
    spki_sha256: bytes | None = None  # SHA-256 of the DER SubjectPublicKeyInfo
    system: bool = False  # any authority this system trusts

    def __post_init__(self) -> None:
        if (self.ca_pem is not None) + (self.spki_sha256 is not None) + self.system != 1:
            raise ConfigError("pin: want a CA certificate, the SHA-256 of a key or the system, and not both")
        if self.spki_sha256 is not None and len(self.spki_sha256) != 32:
            raise ConfigError(f"pin: key digest is {len(self.spki_sha256)} bytes, want the 32 of a SHA-256")

    def context(self) -> ssl.SSLContext:
        """A client context that trusts nothing but this pin, TLS 1.2 at least."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.system:
            context.load_default_certs()
            return context
        if self.ca_pem is None:  # the key is compared once the handshake has proved it, see PinnedConnector
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            context.load_verify_locations(cadata=self.ca_pem)
        except (ssl.SSLError, ValueError):
            raise ConfigError("pin: the CA certificate is not PEM") from None
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    body: bytes = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)
    peer_spki_sha256: bytes
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)  # names in lower case


class Stream:
    """An answer whose body is read as it comes. Lives inside `async with Fetcher.stream(...)`."""

    def __init__(self, answer: aiohttp.ClientResponse, asked: str, pin: Pin, idle_s: float) -> None:
        self.status: Final = answer.status
        self.headers: Final = {name.lower(): value for name, value in answer.headers.items()}
        self.length: Final = answer.content_length  # as announced; None when it was not
        self._answer, self._asked, self._pin, self._idle_s = answer, asked, pin, idle_s

    async def piece(self) -> bytes:
        """What came next of the body, at most 256 KiB; nothing at its end, TransportError when it broke off before."""
        with _ours(self._asked, self._idle_s, self._pin):
            if "content-encoding" in self.headers:
                raise ProtocolError("answer is compressed, want it as it is")
            return await self._answer.content.read(_PIECE)

    async def read(self, max_bytes: int) -> bytes:
        """The whole body, or ProtocolError when it is longer than `max_bytes`."""
        with _ours(self._asked, self._idle_s, self._pin):
            return await _read(self._answer, max_bytes)


class PinnedConnector(aiohttp.TCPConnector):
    """Hands out a connection only once its peer is known to be the pinned one."""

    def __init__(self, pin: Pin) -> None:
        super().__init__(ssl=pin.context(), limit=1)
        self._pin = pin
        self._open: dict[asyncio.Future[None], asyncio.Transport] = {}  # by what is done once it is closed
        self._known: WeakKeyDictionary[asyncio.Transport, bytes] = WeakKeyDictionary()  # peers' keys
        self.peer_spki_sha256 = b""

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Called before a request is written, for a new connection and for one used before."""
        connection = await super().connect(req, traces, timeout)
        protocol, transport = connection.protocol, connection.transport
        if protocol is not None and transport is not None and (end := protocol.closed) is not None:
            self._open[end] = transport
        try:
            known = None if transport is None else self._known.get(transport)
            self.peer_spki_sha256 = known or _peer_spki_sha256(connection)
            if transport is not None:
                self._known[transport] = self.peer_spki_sha256
            if self._pin.spki_sha256 not in (None, self.peer_spki_sha256):
                raise VerifyError(f"key of the peer is {self.peer_spki_sha256.hex()}, want the pinned one")
        except BaseException:
            connection.close()
            raise
        return connection

    async def cut(self) -> None:
        """Leave no socket behind: a peer that lingers over its TLS farewell is not waited for."""
        for end, transport in self._open.items():
            with suppress(AttributeError):  # Python 3.11, of a transport that was closed twice
                if not end.done():
                    transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await asyncio.gather(*self._open, return_exceptions=True)


class Fetcher:
    """Requests to one https URL, whose path goes before every path asked for. A context manager."""

    def __init__(self, url: str, pin: Pin) -> None:
        self.url = checked_url(url)
        self._pin = pin

    async def __aenter__(self) -> Self:
        self._connector = PinnedConnector(self._pin)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "strongroom"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._connector.cut()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        cookies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int,
        timeout_s: float,
    ) -> Response:
        """The answer, whatever its status. An answer over `max_bytes` is a ProtocolError.

        A body is sent as JSON, and JSON asked for, unless `headers` say otherwise.
        """
        where = f"{self.url}{path}"
        sent = {} if body is None else {"Content-Type": "application/json"}
        sent |= headers or {}
        if cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        with _ours(f"{method} {where}", timeout_s, self._pin, self.url):
            async with self._session.request(
                method,
                URL(where, encoded=True),
                data=body,
                headers=sent,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                content = await _read(answer, max_bytes)
                found = {name: morsel.value for name, morsel in list(answer.cookies.items())[:MAX_COOKIES]}
        return Response(
            status=answer.status,
            body=content,
            cookies=found,
            headers={name.lower(): value for name, value in answer.headers.items()},
            peer_spki_sha256=self._connector.peer_spki_sha256,
        )

    @asynccontextmanager
    async def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, idle_s: float, total_s: float
    ) -> AsyncIterator[Stream]:
        """The answer to a GET, its body still to be read; leaving early closes the connection.

        `path` may hold a query. TransportError when the peer is silent for `idle_s` seconds, or the whole answer takes
        more than `total_s`.
        """
        asked = f"GET {self.url}{path.partition('?')[0]}"  # what is behind it may be a signature
        limits = aiohttp.ClientTimeout(total=total_s, sock_connect=idle_s, sock_read=idle_s)
        with _ours(asked, idle_s, self._pin, self.url):
            answer = await self._session.get(
                URL(f"{self.url}{path}", encoded=True), headers=headers, allow_redirects=False, timeout=limits
            )
        try:
            yield Stream(answer, asked, self._pin, idle_s)
        finally:
            answer.close()


def checked_url(text: str) -> str:
    """An https URL of host, port and path prefix without a slash at its end; ConfigError for anything else."""
    try:
        url = URL(text if _VISIBLE.fullmatch(text) else "")
        (url.host or "").encode("idna")  # as the resolver will: a label may be empty or too long
        plain = (
            url.with_path("/") == url.origin().with_path("/") and not url.query_string and not url.fragment
        )
        if url.scheme == "https" and url.host and url.port and url.user is None and plain:
            return text.rstrip("/")
    except ValueError:
        pass  # said below, like every other way to be wrong
    raise ConfigError(f"url: got {text[:200]!r}, want https://host[:port][/path]")


@contextmanager
def _ours(asked: str, timeout_s: float, pin: Pin, peer: str = "") -> Iterator[None]:
    """Every failure inside as an error of ours that says what was asked."""
    try:
        yield
    except VerifyError as error:
        raise VerifyError(f"{peer or asked}: {error}") from None
    except ProtocolError as error:
        raise ProtocolError(f"{asked}: {error}") from None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        authority = "an authority of this system" if pin.system else "the pinned authority"
        raise _as_ours(error, asked, timeout_s, authority) from None


async def _read(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if "Content-Encoding" in answer.headers:
        raise ProtocolError("answer is compressed, want it as it is")
    content = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            answer.close()
            raise ProtocolError(f"answer is longer than {max_bytes} bytes")
    return bytes(content)


def _peer_spki_sha256(connection: Connection) -> bytes:
    secured = connection.transport and connection.transport.get_extra_info("ssl_object")
    der = secured.getpeercert(binary_form=True) if secured else None
    if not der:
        raise VerifyError("peer showed no certificate, want the pinned one")
    try:
        key = x509.load_der_x509_certificate(der).public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise VerifyError("peer's certificate holds no key we can read") from None


def _as_ours(error: Exception, asked: str, timeout_s: float, authority: str) -> StrongroomError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", None) or str(error.certificate_error)
        return VerifyError(f"{asked}: certificate is not under {authority}: {reason.lower()}")
    if isinstance(error, TimeoutError):
        return TransportError(f"{asked}: no answer within {timeout_s:g} s")
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return TransportError(f"{asked}: tls failed: {error.os_error.strerror or 'handshake broken off'}")
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return TransportError(f"{asked}: {os.strerror(error.errno).lower()}")
    if isinstance(error, OSError) and error.strerror:
        return TransportError(f"{asked}: {error.strerror.lower()}")  # a name that does not resolve
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return TransportError(f"{asked}: answer is not whole HTTP")
    return TransportError(f"{asked}: connection broke off ({type(error).__name__})")
