"""Mirrors sidecars/proxy/stream.py: what a client gets of a stream, in which pieces, and what its receipt says."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecars.proxy import stream as streams
from sidecars.proxy.engine.garbage import GarbageError, GarbageWatch
from sidecars.proxy.fields import Question
from sidecars.proxy.metrics import Metrics
from sidecars.proxy.plan import StreamPlan
from sidecars.proxy.receipts.book import DONE, Book
from sidecars.proxy.routes import Route
from sidecars.proxy.stream import BROKEN_OFF, Stream
from strongroom.errors import MachineError, TransportError
from strongroom.host.door.reply import Reply
from strongroom.receipts.hashing import RECEIPT_COMMENT, StreamHash
from strongroom.receipts.receipt import SignedReceipt
from strongroom.wire.canonical import parse_json
from tests.fakes import book as fake

PLAN = fake.plan()
ANN = fake.tenant(PLAN)
ID = "ab" * 16
EVENTS = [b'data: {"a":1}\n\n', b'data: {"b":22}\n\n', b'data: {"c":333}\n\n']


class Client:
    """Notes what is written, one entry for each write."""

    def __init__(self) -> None:
        self.reaches, self.congested, self.stalled = True, False, False
        self.writes: list[bytes] = []
        self.ended = False
        self.wrote = asyncio.Event()

    def start(self, status: int, content_type: str, headers: Iterable[tuple[str, str]]) -> None:
        self.head = status, content_type, dict(headers)

    def send(self, data: bytes) -> None:
        self.writes.append(data)
        self.wrote.set()

    def send_last(self, data: bytes) -> None:
        self.send(data)
        self.ended = True

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)


class Scene:
    def __init__(self, plan: StreamPlan | None = None, **fields: Any) -> None:
        self.client, self.book, self.metrics = Client(), Book(PLAN, fake.KEYS, fake.identity(PLAN)), Metrics()
        self.book.use_tls(fake.tls())
        witness = self.book.witness(
            id=ID, route=Route.CHAT, tenant=ANN, received=b"{}", forwarded=b"{}", stream=True
        )
        watch = GarbageWatch(Route.CHAT, Question(fields, "", stream=True))
        reply = cast("Reply", self.client)
        self.stream = Stream(reply, witness, watch, self.metrics, plan or StreamPlan())
        self.stream.start([("x", "y")])

    def receipt(self) -> Any:
        entry = self.book.find(ANN, ID)
        assert entry is not None
        hashed = StreamHash()
        hashed.update(self.client.body)
        assert entry.response_sha256 == hashed.digest()
        return self.book.receipt(entry)


def on_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def carried(body: bytes) -> SignedReceipt:
    *_, comment, last, empty = body.split(b"\n\n")
    assert (last, empty) == (b"data: [DONE]", b"")
    return SignedReceipt.from_json(parse_json(comment.removeprefix(RECEIPT_COMMENT), "receipt"))


@pytest.mark.guarantee("G12")
@settings(deadline=None)  # the first one makes the evidence
@given(st.lists(st.integers(1, 60), max_size=6))
def test_events_go_on_whole_however_the_engine_cuts_them(cuts: list[int]) -> None:
    async def work() -> None:
        scene, body, at = Scene(), b"".join(EVENTS) + DONE, 0
        for cut in [*sorted(cut for cut in cuts if cut < len(body)), len(body)]:
            scene.stream.take(body[at:cut])
            at = cut
        assert scene.stream.finish() is not None
        scene.stream.close()
        for write in scene.client.writes:
            assert write.endswith(b"\n\n")
        assert b"".join(write for write in scene.client.writes[:-1]) == b"".join(EVENTS)
        signed = carried(scene.client.body)
        assert signed.receipt == scene.receipt() and signed.receipt.complete
        assert scene.client.ended and scene.client.head[0] == 200

    on_a_loop(work)


def test_one_read_is_one_write_and_the_end_is_one() -> None:
    async def work() -> None:
        scene = Scene()
        scene.stream.take(EVENTS[0] + EVENTS[1])
        scene.stream.take(EVENTS[2] + DONE)
        assert scene.client.writes == [EVENTS[0] + EVENTS[1], EVENTS[2]]
        scene.stream.finish()
        assert len(scene.client.writes) == 3 and scene.client.ended
        assert scene.stream.spent(10) == (10, 3)

    on_a_loop(work)


def test_counts_that_grow_with_every_event_are_the_last_ones() -> None:
    async def work() -> None:
        scene = Scene()
        event = b'data: {"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n'
        scene.stream.take(event % 1 + event % 900 + DONE)
        assert scene.stream.spent(400) == (3, 900)
        scene.stream.close()

    on_a_loop(work)


def test_every_event_is_told_of() -> None:
    async def work() -> None:
        times: list[float] = []
        scene = Scene()
        scene.stream._heard = times.append
        scene.stream.take(EVENTS[0])
        scene.stream.take(EVENTS[1][:3])
        assert len(times) == 1
        scene.stream.take(EVENTS[1][3:] + DONE)
        assert len(times) == 2 and times == sorted(times)
        scene.stream.close()

    on_a_loop(work)


@pytest.mark.guarantee("G12")
def test_a_receipt_that_cannot_be_kept_leaves_an_aborted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        scene = Scene()
        scene.stream.take(EVENTS[0] + DONE)
        with monkeypatch.context() as patch:
            patch.setattr(scene.book.log, "append", _full)
            with pytest.raises(MachineError, match="no room"):
                scene.stream.finish()
        scene.stream.break_off()
        scene.stream.close()
        assert DONE not in scene.client.body and not scene.client.ended
        assert (
            not scene.receipt().complete and scene.book.log.tree.size == 1
        )  # the hash of what was delivered

    on_a_loop(work)


def _full(_: bytes) -> int:
    raise MachineError("receipt log: no room for another record")


@pytest.mark.parametrize("pieces", [[], EVENTS, [*EVENTS, DONE[:-1]], [*EVENTS, b"data: {"], [DONE, b"da"]])
def test_a_stream_without_its_end_is_broken_off(pieces: list[bytes]) -> None:
    async def work() -> None:
        scene = Scene()
        for piece in pieces:
            scene.stream.take(piece)
        with pytest.raises(TransportError, match="before its end"):
            scene.stream.finish()
        scene.stream.break_off()
        scene.stream.close()
        assert scene.client.body.endswith(BROKEN_OFF) and DONE not in scene.client.body
        assert not scene.client.ended and not scene.receipt().complete

    on_a_loop(work)


def test_a_failure_that_the_engine_reports_is_no_complete_answer() -> None:
    async def work() -> None:
        scene = Scene()
        for piece in (EVENTS[0], b'data: {"error": {"message": "out of memory"}}\n\n', DONE):
            scene.stream.take(piece)
        assert scene.stream.finish() is False
        scene.stream.close()
        signed = carried(scene.client.body)
        assert scene.client.ended and signed.receipt == scene.receipt() and not signed.receipt.complete

    on_a_loop(work)


def test_nothing_follows_the_end() -> None:
    async def work() -> None:
        scene = Scene()
        scene.stream.take(EVENTS[0] + DONE)
        with pytest.raises(TransportError, match="after its end"):
            scene.stream.take(EVENTS[1])
        scene.stream.close()
        scene = Scene()
        with pytest.raises(TransportError, match="after its end"):
            scene.stream.take(EVENTS[0] + DONE + EVENTS[1])
        assert scene.client.writes == []
        scene.stream.close()

    on_a_loop(work)


def test_an_event_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_EVENT", 20)

    async def work() -> None:
        scene = Scene()
        scene.stream.take(b"data: " + b"x" * 14)
        with pytest.raises(TransportError, match="without an end"):
            scene.stream.take(b"y")
        scene.stream.close()

    on_a_loop(work)


@pytest.mark.guarantee("G9")
def test_garbage_is_not_handed_on() -> None:
    async def work() -> None:
        scene = Scene(logprobs=True)
        with pytest.raises(GarbageError):
            scene.stream.take(b'data: {"logprobs":{"content":[{"logprob":NaN}]}}\n\n')
        scene.stream.break_off()
        scene.stream.close()
        assert scene.client.body == BROKEN_OFF

    on_a_loop(work)


def test_a_client_that_left_gets_an_aborted_receipt() -> None:
    async def work() -> None:
        scene = Scene()
        scene.stream.take(EVENTS[0])
        scene.client.reaches = False
        scene.stream.break_off()
        scene.stream.close()
        assert scene.client.body == EVENTS[0] and not scene.receipt().complete

    on_a_loop(work)


@settings(deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.sampled_from([1, 16, 64, 256]))
def test_padding_makes_every_write_a_multiple_and_is_in_no_hash(lengths: list[int], pad: int) -> None:
    async def work() -> None:
        scene, plain = Scene(StreamPlan(pad=pad)), Scene()
        for length in lengths:
            for one in (scene, plain):
                one.stream.take(b"data: " + b"x" * length + b"\n\n")
        assert {len(write) % pad for write in scene.client.writes} == {0}
        for one in (scene, plain):
            one.stream.take(DONE)
            one.stream.finish()
            one.stream.close()
        assert scene.receipt().response_sha256 == plain.receipt().response_sha256

    on_a_loop(work)


def test_gathering_writes_once_for_many_reads() -> None:
    async def work() -> None:
        scene = Scene(StreamPlan(batch_ms=20))
        for event in EVENTS[:2]:
            scene.stream.take(event)
        assert scene.client.writes == []
        await scene.client.wrote.wait()
        assert scene.client.writes == [EVENTS[0] + EVENTS[1]]
        scene.stream.take(EVENTS[2] + DONE)
        scene.stream.finish()  # what was gathered goes first
        assert scene.client.writes[1] == EVENTS[2] and carried(scene.client.body).receipt.complete
        scene.stream.close()

    on_a_loop(work)


def test_silence_is_filled_with_comments_that_no_hash_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING", 0.02)

    async def work() -> None:
        scene = Scene()
        scene.stream.take(EVENTS[0][:-3])  # an event that is not whole, of which nothing has gone out
        await scene.client.wrote.wait()
        assert scene.client.writes[0] == b": ping\n\n"
        scene.stream.take(EVENTS[0][-3:] + DONE)
        scene.client.congested = True  # nobody reads: no more is written
        count = len(scene.client.writes)
        await asyncio.sleep(0.06)
        assert len(scene.client.writes) == count
        scene.stream.finish()
        scene.stream.close()
        assert scene.receipt().complete
        await asyncio.sleep(0.04)
        assert scene.client.writes[-1].endswith(DONE)

    on_a_loop(work)


def test_tokens_are_counted_as_the_engine_says() -> None:
    async def work() -> None:
        scene = Scene()
        scene.stream.take(EVENTS[0])
        scene.stream.take(
            b'data: {"choices":[],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}\n\n'
            + DONE
        )
        assert scene.stream.spent(400) == (7, 5)
        scene.stream.close()

    on_a_loop(work)
