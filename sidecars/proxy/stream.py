"""One streamed answer on its way from the engine to a client: whole events only, each hashed as it is delivered.

    pieces        as the engine's chunks decode, at most one TLS write for each
    gathering     `batch_ms`: events of so many milliseconds in one write
    padding       `pad`: what is written at once is made a multiple of that by a comment, which every SSE parser drops
    keep-alive    a comment after PING seconds of silence, because proxies on the way cut what is silent
    the end       the receipt as a comment, the engine's own last event, and the last chunk, in one write

A cut answer never has the engine's last event, nor the last chunk. No answer can imitate the marks looked for here:
JSON escapes quotes and newlines.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final

from sidecars.proxy.engine.garbage import GarbageWatch
from sidecars.proxy.metrics import Metrics
from sidecars.proxy.plan import StreamPlan
from sidecars.proxy.receipts.book import DONE, Witness
from strongroom.errors import TransportError
from strongroom.host.door.reply import EVENT_STREAM, Reply

PING: Final = 15.0  # seconds
MAX_EVENT: Final = 32 * 1024 * 1024  # bytes
BROKEN_OFF: Final = (
    b'data: {"error":{"message":"the engine stopped before the answer was complete",'
    b'"type":"server_error","param":null,"code":"engine_error"}}\n\n'
)
_PING: Final = b": ping\n\n"
_FAILED: Final = b'data: {"error"'  # the engine's own report of a failure in the midst of a stream
_EVENT: Final = b"data: "
_USAGE: Final = b'"usage":'
_COUNTS: Final = re.compile(
    rb'"prompt_tokens": ?([0-9]{1,12}).*?"completion_tokens": ?([0-9]{1,12})', re.DOTALL
)
_LEAST_COMMENT: Final = 3  # bytes: a colon and the empty line's two


class Stream:
    """Fed by take() for every piece that the engine sends; finish() or break_off() ends it, and always close()."""

    def __init__(
        self,
        reply: Reply,
        witness: Witness,
        watch: GarbageWatch,
        metrics: Metrics,
        plan: StreamPlan,
        heard: Callable[[float], object] | None = None,
    ) -> None:
        """`heard` is told of every event: loop.time()."""
        self._reply, self._witness, self._watch, self._metrics = reply, witness, watch, metrics
        self._heard = heard
        self._pad, self._gather = plan.pad, plan.batch_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._held = b""  # the beginning of an event
        self._gathered: list[bytes] = []
        self._flush: asyncio.TimerHandle | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._asked = self._last = self._sent = self._loop.time()
        self._events = 0
        self._usage = b""
        self._done = False  # the engine's last event came; it goes out with the receipt
        self._began = False
        self.failed = False  # the engine reported a failure

    def start(self, headers: Iterable[tuple[str, str]]) -> None:
        """The head goes out at once, however long the first event takes."""
        self._metrics.stream_began()
        self._began = True
        self._reply.start(200, EVENT_STREAM, (*headers, ("x-accel-buffering", "no")))
        self._ping = self._loop.call_later(PING, self._keep_alive)

    def take(self, piece: bytes) -> None:
        """More of the engine's body. Raises TransportError for what is no stream, GarbageError as of the watch."""
        if self._held:
            piece, self._held = self._held + piece, b""
        if not piece.endswith(b"\n\n"):
            piece = self._hold(piece)
            if not piece:
                return
        self._watch.seen(piece)
        if self._done:
            raise TransportError("engine: the stream goes on after its end")
        if _FAILED in piece:
            self.failed = True
        if _USAGE in piece:
            self._usage = piece
        if (end := piece.find(DONE)) >= 0:
            if end + len(DONE) < len(piece):
                raise TransportError("engine: the stream goes on after its end")
            self._done = True
            piece = piece[: -len(DONE)]
        if piece:
            self._note(piece)
            if self._gather:
                self._put_by(piece)
            else:
                self._send(piece)

    def _hold(self, piece: bytes) -> bytes:
        """The whole events in `piece`; what follows them waits for the rest of it."""
        end = piece.rfind(b"\n\n") + 2
        if end < 2:
            end = 0
        self._held = piece[end:]
        if len(self._held) > MAX_EVENT:
            raise TransportError("engine: an event without an end")
        return piece[:end]

    def _note(self, events: bytes) -> None:
        now = self._loop.time()
        if self._events:
            self._metrics.gap(now - self._last)
        else:
            self._metrics.first_token(now - self._asked)
        self._last = now
        if self._heard is not None:
            self._heard(now)
        self._events += events.count(_EVENT)

    def _put_by(self, events: bytes) -> None:
        self._gathered.append(events)
        if self._flush is None:
            self._flush = self._loop.call_later(self._gather, self._send_gathered)

    def _send_gathered(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._gathered:
            events, self._gathered = b"".join(self._gathered), []
            self._send(events)

    def _send(self, events: bytes) -> None:
        if self._pad:
            events += _comment(-(len(events) + _LEAST_COMMENT) % self._pad)
        self._sent = self._loop.time()
        self._witness.delivered(events)
        self._metrics.sent(len(events))
        self._reply.send(events)

    def _keep_alive(self) -> None:
        silent = self._loop.time() - self._sent
        if silent >= PING:
            silent = 0.0
            if not self._reply.congested:
                self._send(_PING)
        self._ping = self._loop.call_later(PING - silent, self._keep_alive)

    def finish(self) -> bool:
        """Everything came: receipt, last event, last chunk. Whether the answer is complete.

        Raises TransportError when it did not end as a stream does.
        """
        if not self._done or self._held:
            raise TransportError("engine: the stream ended before its end")
        self._send_gathered()
        complete = self._reply.reaches and not self.failed
        self._reply.send_last(self._witness.receipt_comment(complete=complete) + DONE)
        return complete

    def break_off(self) -> None:
        """Say in the stream's own language that it is cut; the missing last chunk says it in HTTP's."""
        if self._reply.reaches:
            self._send_gathered()
            self._witness.delivered(BROKEN_OFF)
            self._reply.send(BROKEN_OFF)

    def close(self) -> None:
        """Let go of the timers, and leave a receipt of what was delivered where there is none."""
        for timer in (self._ping, self._flush):
            if timer is not None:
                timer.cancel()
        if self._began:
            self._metrics.stream_ended()
        self._witness.close(complete=False)

    def spent(self, question: int) -> tuple[int, int]:
        """Tokens of the question and of the answer: as the engine counts where it says so, else as well as we can.

        `question` is what we take the question for, in tokens.
        """
        if found := _COUNTS.findall(self._usage):
            prompt, completion = found[-1]  # counts that come with every event grow
            return int(prompt), int(completion)
        return question, self._events


def _comment(filler: int) -> bytes:
    return b":" + b" " * filler + b"\n\n"
