"""One local request, carried to the server and back. Blocking: it runs in a thread of its own.

An answer as one value is handed on after its receipt was checked. A stream is handed on as it comes, but for its end:
`data: [DONE]` and whatever comes after it follow only when the receipt speaks for all of it, and an error event does
otherwise.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from strongroom.errors import PolicyError, ProtocolError, StrongroomError, TransportError, VerifyError
from strongroom.host.door.refusal import Refusal
from strongroom.host.door.reply import JSON_TYPE
from strongroom.host.exchange import RECEIPT_HEADER, Proof, ProvenExchange
from strongroom.host.http1 import Limits, Response
from strongroom.host.relay.pool import Connection, Pool
from strongroom.host.sealedhttp import ForgottenKeyError
from strongroom.wire.line import sentence

NO_RETRY: Final = ("x-should-retry", "false")  # what OpenAI's clients go by
_PASSED: Final = ("content-type", "retry-after", RECEIPT_HEADER)
_ASKED: Final = Limits(silence=60.0, total=120.0)
_MARKS: Final = (b"data: [DONE]", b"data:[DONE]")  # what readers take for the end, at a line's beginning
_MARK: Final = re.compile(rb"[\r\n](data: ?\[DONE\])")
_MOST_AFTER: Final = 64 << 10  # bytes from there to the stream's end


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    method: str
    target: str
    token: str | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)


class Sink(Protocol):
    """The local client. Each call waits until there is room; TransportError when it has left."""

    def whole(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None: ...
    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None: ...
    def send(self, data: bytes) -> None: ...
    def end(self) -> None: ...


class Carrying:
    """One exchange. cancel() may be called from any thread, at any time."""

    def __init__(
        self,
        pool: Pool,
        asked: Asked,
        *,
        prove: Callable[[ProvenExchange], Proof],
        keep: Callable[[Proof], None],
    ) -> None:
        self._pool, self._asked, self._prove, self._keep = pool, asked, prove, keep
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._cancelled = False
        self._answered = False  # the server has read what was asked
        self._started = False

    def cancel(self) -> None:
        """The local client has left: the server is to know at once."""
        with self._lock:
            self._cancelled = True
            if self._connection is not None:
                self._connection.abort()

    def run(self, sink: Sink) -> StrongroomError | None:
        """Carry it. What went wrong on the server's side has been told to the client, and is returned."""
        try:
            try:
                self._try(sink)
            except ForgottenKeyError:
                if self._answered:
                    raise
                self._try(sink)  # with a connection that is verified now: the pool kept none
        except StrongroomError as error:
            if not self._cancelled:
                self._tell(error, sink)
            return error
        return None

    def _try(self, sink: Sink) -> None:
        self._hold(None)
        with self._pool.borrowed() as connection:
            self._hold(connection)
            try:
                self._carry(connection, sink)
            finally:
                self._hold(None)

    def _hold(self, connection: Connection | None) -> None:
        with self._lock:
            self._connection = connection
            if self._cancelled:
                raise TransportError("connect: the local client left")

    def _carry(self, connection: Connection, sink: Sink) -> None:
        asked = self._asked
        if asked.method == "GET":
            headers = {"authorization": f"Bearer {asked.token}"} if asked.token is not None else {}
            self._whole(connection.request("GET", asked.target, headers, limits=_ASKED), sink)
            return
        path = asked.target
        exchange = ProvenExchange(connection, path=path, body=asked.body, token=asked.token, hands_on=True)
        self._answered = True
        if exchange.answer.status != 200:
            self._whole(exchange.answer, sink)
        elif exchange.streams:
            self._stream(exchange, sink)
        else:
            body = b"".join(exchange)
            self._keep(self._prove(exchange))
            self._started = True
            sink.whole(200, _headers(exchange.answer), body)

    def _whole(self, answer: Response, sink: Sink) -> None:
        body = answer.read()
        self._started = True
        sink.whole(answer.status, _headers(answer), body)

    def _stream(self, exchange: ProvenExchange, sink: Sink) -> None:
        sink.start(200, _headers(exchange.answer))
        self._started, end = True, _End()
        for piece in exchange:
            if data := end.before(piece):
                sink.send(data)
        self._keep(self._prove(exchange))
        if end.held:
            sink.send(end.held)
        sink.end()

    def _tell(self, error: StrongroomError, sink: Sink) -> None:
        refusal = told(error)
        try:
            if not self._started:
                headers = [("content-type", JSON_TYPE), *refusal.headers.items()]
                sink.whole(refusal.status, headers, refusal.body())
            else:
                sink.send(b"\n\ndata: " + refusal.body() + b"\n\n")  # and no end: what came is not whole
        except TransportError:
            pass  # it has left


class _End:
    """Holds back the end of a stream: from the first mark of it on, or what may be the beginning of one."""

    def __init__(self) -> None:
        self.held = b""
        self._before = b"\n"  # the last byte that went on; the stream's beginning is a line's, too

    def before(self, piece: bytes) -> bytes:
        """What may go on now that `piece` has come."""
        seen = self._before + self.held + piece
        if mark := _MARK.search(seen):
            at = mark.start(1)
        else:
            at = max(seen.rfind(b"\n"), seen.rfind(b"\r")) + 1
            if not at or not any(whole.startswith(seen[at:]) for whole in _MARKS):
                at = len(seen)
        passed, self.held = seen[1:at], seen[at:]
        if len(self.held) > _MOST_AFTER:
            raise ProtocolError("connect: the stream goes on after its end")
        self._before = seen[at - 1 : at]
        return passed


def told(error: StrongroomError) -> Refusal:
    """An error of ours as the answer of a gateway."""
    text = sentence(str(error), most=1000)
    if isinstance(error, TransportError):
        return Refusal(502, "server_unreachable", text)
    code = "verification_failed" if isinstance(error, VerifyError | PolicyError) else "server_refused"
    return Refusal(502, code, text, headers=dict([NO_RETRY]))


def _headers(answer: Response) -> list[tuple[str, str]]:
    return [(name, value) for name in _PASSED if (value := answer.header(name)) is not None]
