"""A client's HTTP/1.1 over one connection that is already there: one request after another, exact body bytes.

Everything the peer may send is bounded: headers, body, silence, and the whole time. Nothing is decompressed,
redirected, cached or retried, and the body is handed on as it came: receipts speak of exact bytes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import h11

from strongroom.errors import ProtocolError, TransportError

MAX_HEAD: Final = 32 << 10  # bytes of a response's status line and headers
_READ: Final = 64 << 10
_MAX_INTERIM: Final = 4  # 1xx answers before the real one


class Stream(Protocol):
    """What a TLS stream offers. Every call lasts as long as settimeout says, and may raise TransportError."""

    def send(self, data: bytes) -> None: ...
    def recv(self, limit: int) -> bytes: ...
    def settimeout(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    silence: float = 60.0  # seconds without a byte
    total: float = 6 * 3600.0  # seconds from the request to the last byte of the answer
    body: int = 64 << 20  # bytes of the answer's body


class Response:
    """An answer whose body is still on its way: iterate over it once, or read() it."""

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: Iterator[bytes]) -> None:
        self.status = status
        self._headers = headers  # names in lower case
        self._body = body

    def header(self, name: str) -> str | None:
        """The value of a header; ProtocolError when it came more than once."""
        values = [value for key, value in self._headers if key == name.lower().encode("ascii")]
        if len(values) > 1:
            raise ProtocolError(f"http: header {name} came {len(values)} times, want one")
        return values[0].decode("latin-1") if values else None

    def __iter__(self) -> Iterator[bytes]:
        """Body bytes as they arrive. Raises ProtocolError when the body ends early or outgrows its limit."""
        return self._body

    def read(self) -> bytes:
        return b"".join(self._body)


class HTTPConnection:
    """Speaks on a stream it does not own. A body must be read to its end before the next request."""

    def __init__(
        self, stream: Stream, authority: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._authority = authority
        self._clock = clock
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limits: Limits | None = None,
    ) -> Response:
        """The answer's head, with the body to follow. Raises ProtocolError or TransportError; sends once."""
        limits = limits or Limits()
        self._next_cycle()
        deadline = self._clock() + limits.total
        self._stream.settimeout(min(limits.silence, limits.total))  # not what was left of the last answer's
        self._send(method, target, dict(headers or {}), body)
        head = self._head(limits, deadline)
        response = Response(head.status_code, list(head.headers), self._body(limits, deadline))
        if (coding := response.header("content-encoding")) not in (None, "identity"):
            raise ProtocolError(f"http: content-encoding is {coding!r}, want none")
        return response

    def _next_cycle(self) -> None:
        if self._state.our_state is h11.IDLE:
            return
        try:
            self._state.start_next_cycle()
        except h11.LocalProtocolError as error:
            raise ProtocolError("http: the connection is at its end, want it kept alive") from error

    def _send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        lines = [("host", self._authority), *headers.items()]
        if body:
            lines.append(("content-length", str(len(body))))
        out = self._state.send(h11.Request(method=method, target=target, headers=lines)) or b""
        if body:
            out += self._state.send(h11.Data(data=body)) or b""
        out += self._state.send(h11.EndOfMessage()) or b""
        self._stream.send(out)

    def _head(self, limits: Limits, deadline: float) -> h11.Response:
        for _ in range(_MAX_INTERIM):
            event = self._event(limits, deadline)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                break
        raise ProtocolError("http: the server did not answer the request")

    def _body(self, limits: Limits, deadline: float) -> Iterator[bytes]:
        received = 0
        while isinstance(event := self._event(limits, deadline), h11.Data):
            received += len(event.data)
            if received > limits.body:
                raise ProtocolError(f"http: the answer is longer than {limits.body} bytes")
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise ProtocolError("http: the answer was cut short")

    def _event(self, limits: Limits, deadline: float) -> h11.Event | None:
        while True:
            try:
                event = self._state.next_event()
                if event is h11.NEED_DATA:
                    self._state.receive_data(self._pull(limits, deadline))
                    continue
            except h11.RemoteProtocolError as error:
                raise ProtocolError(f"http: {str(error).lower()}") from error
            return event if isinstance(event, h11.Event) else None

    def _pull(self, limits: Limits, deadline: float) -> bytes:
        if (left := deadline - self._clock()) <= 0:
            raise TransportError(f"http: no complete answer after {limits.total:g} s")
        self._stream.settimeout(min(limits.silence, left))
        return self._stream.recv(_READ)
