"""The answer to one request: status, headers, body, through one Peer."""

import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from typing import Final

from strongroom.host.door.http import ServerHTTP
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal

JSON_TYPE: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"


class Reply:
    """Writes at once into the connection's bounded buffer; drain() after each piece keeps the bound."""

    def __init__(self, http: ServerHTTP, peer: Peer) -> None:
        self._http, self._peer = http, peer
        self.status = 0  # 0 until a head was sent

    @property
    def reaches(self) -> bool:
        """Whether there is still somebody to read."""
        return self._peer.reachable

    def start(
        self,
        status: int,
        content_type: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        length: int | None = None,
    ) -> None:
        """The head. Without a length the body is chunked, and only end() makes it a whole one."""
        self.status = status
        common = [
            ("date", formatdate(time.time(), usegmt=True)),
            ("content-type", content_type),
            ("cache-control", "no-store"),
        ]
        self._peer.write(self._http.start(status, [*common, *headers], length=length))

    def send(self, data: bytes) -> None:
        self._peer.write(self._http.data(data))

    def end(self) -> None:
        self._peer.write(self._http.end())

    async def drain(self) -> None:
        await self._peer.drain()

    def whole(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        content_type: str = JSON_TYPE,
    ) -> None:
        self.start(status, content_type, (headers or {}).items(), length=len(body))
        self.send(body)
        self.end()

    def refuse(self, refusal: Refusal) -> None:
        self.whole(refusal.status, refusal.body(), refusal.headers)
