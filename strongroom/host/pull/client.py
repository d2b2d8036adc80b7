"""GETs over https to whatever host a store leads to: redirects followed with care, failures in one sentence.

A redirect to anything but https is refused. Credentials go to the host they were made for and to no other: the next
host of a redirect is asked without them.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

from yarl import URL

from strongroom.errors import ConfigError, ProtocolError, StrongroomError, TransportError
from strongroom.host.fetch import Fetcher, Pin, Stream
from strongroom.host.pull.attempts import Attempts
from strongroom.wire.line import sentence

MAX_REDIRECTS: Final = 5
IDLE: Final = 30.0  # seconds of silence
SLOWEST: Final = 16 << 10  # bytes per second of a whole answer
_MAX_HOSTS: Final = 8  # with an open connection
_MAX_EXCUSE: Final = 4096  # bytes of an error's body
_MOVED: Final = (301, 302, 303, 307, 308)
_BUSY: Final = (408, 425, 429)
_VISIBLE: Final = re.compile("[!-~]+")
_CODE: Final = re.compile(
    rb'<Code>([A-Za-z]{1,60})</Code>|"code"\s*:\s*"([A-Za-z_]{1,60})"'
)  # S3, registries


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One GET: of which host, what, and with which headers."""

    origin: str  # https://host[:port]
    path: str  # percent-encoded, with its query
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)  # headers for this origin alone
    follow: bool = True  # False where the way is signed, and another is another


class Client:
    """One conversation: one request at a time, a connection kept to each host. A context manager."""

    def __init__(self, pin: Pin, *, idle_s: float = IDLE) -> None:
        self._pin = pin
        self._idle_s = idle_s
        self._open: dict[str, tuple[Fetcher, AsyncExitStack]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, stack in self._open.values():
            await stack.aclose()

    @asynccontextmanager
    async def get(self, ask: Ask, *, max_bytes: int) -> AsyncIterator[Stream]:
        """The answer at the end of all redirects, whatever its status; its body is still to be read."""
        total_s = self._idle_s + max_bytes / SLOWEST
        for _ in range(MAX_REDIRECTS + 1):
            fetcher = await self._fetcher(ask.origin)
            headers = {"Accept": "*/*"} | dict(ask.headers) | dict(ask.secret)
            async with fetcher.stream(
                ask.path, headers=headers, idle_s=self._idle_s, total_s=total_s
            ) as answer:
                if answer.status not in _MOVED or not ask.follow:
                    yield answer
                    return
                ask = _moved(ask, answer.headers.get("location", ""))
        raise ProtocolError(f"{ask.origin}: more than {MAX_REDIRECTS} redirects in a row")

    def beside(self) -> "Client":
        """Another conversation with the same rules."""
        return Client(self._pin, idle_s=self._idle_s)

    async def _fetcher(self, origin: str) -> Fetcher:
        if origin not in self._open:
            if len(self._open) == _MAX_HOSTS:
                _, oldest = self._open.pop(next(iter(self._open)))
                await oldest.aclose()
            stack = AsyncExitStack()
            self._open[origin] = await stack.enter_async_context(Fetcher(origin, self._pin)), stack
        return self._open[origin][0]


def plain(url: URL) -> str:
    """A URL without what may be a secret in it: no query, no user."""
    return str(url.with_query(None).with_user(None))


def split(text: str, subject: str) -> tuple[str, str]:
    """Origin and path with query of an https URL without user and fragment; ProtocolError for any other."""
    try:
        url = URL(text if _VISIBLE.fullmatch(text) else "", encoded=True)
        if url.scheme != "https" or not url.host or url.user is not None or url.password is not None:
            raise ValueError
        origin = f"https://{url.host_subcomponent}" + ("" if url.is_default_port() else f":{url.port}")
    except ValueError:
        shown = sentence(text.partition("?")[0], most=120)
        raise ProtocolError(f"{subject} {shown!a}, want an https url") from None
    return origin, url.raw_path_qs


async def refuse(answer: Stream, what: str, attempts: Attempts) -> StrongroomError:
    """The error for an answer that is not the wanted one: a TransportError where a later try may bring another."""
    if answer.status in _BUSY or answer.status >= 500:
        attempts.heed(answer.headers)
        return TransportError(f"{what}: answer is {answer.status}, want 200")
    code = _CODE.search(await _excuse(answer))
    said = f"{answer.status}" + (f" ({(code[1] or code[2]).decode()})" if code else "")
    if answer.status in (401, 403):
        return ProtocolError(f"{what}: answer is {said}, want credentials that may read it")
    if answer.status in (404, 410):
        return ProtocolError(f"{what}: answer is {said}, there is no such file")
    return ProtocolError(f"{what}: answer is {said}, want 200")


async def _excuse(answer: Stream) -> bytes:
    try:
        return await answer.read(_MAX_EXCUSE)
    except StrongroomError:
        return b""  # the status says enough


def _moved(ask: Ask, location: str) -> Ask:
    here = URL(ask.origin + ask.path, encoded=True)
    try:
        there = str(here.join(URL(location, encoded=True)).with_fragment(None)) if location else ""
    except ValueError:
        there = location
    origin, path = split(there, f"{plain(here)}: redirects to")
    try:
        Fetcher(origin, Pin(system=True))
    except ConfigError as error:
        raise ProtocolError(f"{plain(here)}: redirects to a bad {error}") from None
    secret = ask.secret if origin == ask.origin else {}
    return replace(ask, origin=origin, path=path, secret=secret)
