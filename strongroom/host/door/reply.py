"""The answer to one request: status, headers, body, through one Peer."""

import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import cache
from typing import Final

from strongroom.host.door.http import ServerHTTP, pack_headers
from strongroom.host.door.peer import Peer, Source
from strongroom.host.door.refusal import Refusal

JSON_TYPE: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"


class _Date:
    """The header line for this second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        if (second := int(time.time())) != self._second:
            self._second, self._line = second, pack_headers([("date", formatdate(second, usegmt=True))])
        return self._line


_DATE: Final = _Date()


@cache
def _typed(content_type: str) -> bytes:
    return pack_headers([("content-type", content_type), ("cache-control", "no-store")])


class Reply:
    """Writes at once into the connection's bounded buffer; drain() after each piece keeps the bound."""

    def __init__(self, http: ServerHTTP, peer: Peer) -> None:
        self._http, self._peer = http, peer
        self.status = 0  # 0 until a head was sent

    @property
    def reaches(self) -> bool:
        """Whether there is still somebody to read."""
        return self._peer.reachable

    @property
    def congested(self) -> bool:
        """Whether more is written than the client has read for now."""
        return self._peer.congested

    @property
    def stalled(self) -> bool:
        """Whether it was given up because it did not read."""
        return self._peer.stalled

    def start(
        self,
        status: int,
        content_type: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        length: int | None = None,
    ) -> None:
        """The head. Without a length the body is chunked, and only end() makes it a whole one."""
        self._peer.write(self._head(status, content_type, headers, length))

    def _head(
        self, status: int, content_type: str, headers: Iterable[tuple[str, str]], length: int | None
    ) -> bytes:
        self.status = status
        lines = _DATE.line() + _typed(content_type) + pack_headers(headers)
        return self._http.start_with(status, lines, length=length)

    def send(self, data: bytes) -> None:
        self._peer.write(self._http.data(data))

    def end(self) -> None:
        self._peer.write(self._http.end())

    def send_last(self, data: bytes) -> None:
        """send() and end() in one write."""
        self._peer.write(self._http.data(data) + self._http.end())

    async def drain(self) -> None:
        await self._peer.drain()

    def draws(self, source: Source | None) -> None:
        """As Peer.draws()."""
        self._peer.draws(source)

    def whole(
        self,
        status: int,
        body: bytes,
        headers: Iterable[tuple[str, str]] = (),
        *,
        content_type: str = JSON_TYPE,
    ) -> None:
        """Head and body in one write."""
        head = self._head(status, content_type, headers, len(body))
        self._peer.write(head + self._http.data(body) + self._http.end())

    def refuse(self, refusal: Refusal) -> None:
        self.whole(refusal.status, refusal.body(), refusal.headers.items())
