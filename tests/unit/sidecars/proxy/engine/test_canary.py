"""Mirrors sidecars/proxy/engine/canary.py, against the engine's double."""

import asyncio
import math
import struct
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.engine import canary
from sidecars.proxy.engine.canary import Sentinel, wait_for_engine
from sidecars.proxy.engine.song import Songbook
from sidecars.proxy.plan import Plan
from sidecars.proxy.routes import Route
from strongroom.errors import ProtocolError, StrongroomError, TransportError
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.exchange import ENGINE, MODEL
from tests.fakes.vllm import VLLM, described

WITHIN = 30.0  # seconds, within which everything here ends


def plan(directory: Path, **more: JSON) -> Plan:
    value: dict[str, JSON] = {
        "listen_host": "127.0.0.1",
        "listen_port": 0,
        "engine_socket": str(directory / "engine"),
        "evidence_socket": str(directory / "evidence"),
        "names": ["127.0.0.1"],
        "model": MODEL.to_json(),
        "engine": ENGINE.to_json(),
        "tenants": [],
        "cache": "tenant",
    }
    return Plan.parse(pack_json({**value, **more}))


def against(directory: Path, engine: VLLM, test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await engine.start(directory / "engine")
        try:
            async with asyncio.timeout(WITHIN):
                await test()
        finally:
            await engine.die()

    asyncio.run(main())


def found(directory: Path, engine: VLLM, book: Songbook | None = None, **more: JSON) -> Sentinel:
    sentinels = []

    async def test() -> None:
        sentinels.append(await wait_for_engine(plan(directory, **more), book))
        sentinels[0].close()

    against(directory, engine, test)
    return sentinels[0]


def refused(directory: Path, engine: VLLM, book: Songbook | None = None, **more: JSON) -> str:
    with pytest.raises(StrongroomError) as caught:
        found(directory, engine, book, **more)
    return str(caught.value)


def test_a_ready_engine_is_found_with_what_it_serves(socket_dir: Path) -> None:
    engine = VLLM()
    sentinel = found(socket_dir, engine)
    assert sentinel.served == {Route.CHAT, Route.COMPLETION}
    assert (sentinel.max_model_len, engine.sung) == (2048, 2)


def test_an_engine_that_embeds_sings_with_a_vector(socket_dir: Path) -> None:
    assert found(socket_dir, VLLM(describe=described(embeds=True))).served == {Route.EMBEDDING}


NAN = b64encode(struct.pack("<2f", 0.5, math.nan)).decode()


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    ("vector", "why"),
    [
        ([0, 0.0], "an empty answer"),
        ([], "an empty answer"),
        (None, "an empty answer"),
        ("", "an empty answer"),
        ("AAAAAAAAAAA=", "an empty answer"),
        ([0.5, None], "numbers that are none"),
        ([0.5, True], "numbers that are none"),
        (["0.5"], "numbers that are none"),
        (NAN, "numbers that are none"),
        ("AAAA", "numbers that are none"),
        ("?", "numbers that are none"),
    ],
)
def test_a_vector_is_of_numbers_and_not_of_zeros(socket_dir: Path, vector: JSON, why: str) -> None:
    engine = VLLM(describe=described(embeds=True), vector={"embedding": vector})
    assert refused(socket_dir, engine) == f"engine: the canary got {why}"


def test_a_vector_may_be_written_as_base64(socket_dir: Path) -> None:
    vector = b64encode(struct.pack("<2f", 0.5, -1.0)).decode()
    engine = VLLM(describe=described(embeds=True), vector={"embedding": vector})
    assert found(socket_dir, engine).served == {Route.EMBEDDING}


def unknown_route() -> dict[str, Any]:
    description = described()
    description["paths"]["/v1/teleport"] = {"post": {}}
    return description


@pytest.mark.guarantee("G9")
@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (VLLM(describe=unknown_route()), "engine: unknown route POST /v1/teleport in version 0.32.0"),
        (VLLM(describe={}), "engine: its description has no object for paths"),
        (VLLM(version="0.32.1"), "engine: it does not say that it is version 0.32.0"),
        (VLLM(name="other"), "engine: /v1/models does not list exactly 'tiny'"),
        (VLLM(canary=""), "engine: the canary got an empty answer"),
        (VLLM(notes=[]), "engine: the canary got an empty answer"),
        (VLLM(notes=[[84, None, -2.0]]), "engine: the canary got numbers that are none"),
        (VLLM(canary_status=500), "engine: the canary got status 500, want 200"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_engine_is_refused_in_a_sentence(socket_dir: Path, engine: VLLM, why: str) -> None:
    assert refused(socket_dir, engine) == why
    assert engine.asked == []


def test_the_plan_may_know_the_song(socket_dir: Path) -> None:
    found(socket_dir, VLLM(), canary={"expect": [84, 87]})
    why = refused(socket_dir, VLLM(), canary={"expect": [84, 88]})
    assert why == "engine: the canary's answer is not the one that was expected"


@pytest.mark.guarantee("G9")
def test_the_next_door_of_a_boot_wants_the_first_ones_song(socket_dir: Path) -> None:
    found(socket_dir, VLLM(), Songbook(socket_dir / "song"))
    found(socket_dir, VLLM(), Songbook(socket_dir / "song"))
    other = VLLM(notes=[[84, -0.5, -2.0], [1, -0.25, -3.0]])
    assert refused(socket_dir, other, Songbook(socket_dir / "song")).endswith("changed at token 1")


def test_a_busy_engine_is_waited_for(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "RETRY", 0.01)
    engine = VLLM(canary_status=503)

    async def test() -> None:
        waiting = asyncio.create_task(wait_for_engine(plan(socket_dir)))
        await sung(engine, 3)
        engine.canary_status = 200
        (await waiting).close()

    against(socket_dir, engine, test)


async def sung(engine: VLLM, songs: int) -> None:
    while engine.sung < songs:  # noqa: ASYNC110 - the engine's double counts, and tells nobody
        await asyncio.sleep(0.01)


def sing_until(
    directory: Path, engine: VLLM, change: Callable[[], None], *, songs: int = 3
) -> StrongroomError:
    """What ends a singing sentinel once `change` was made, after it had sung well."""
    ended: list[StrongroomError] = []

    async def test() -> None:
        sentinel = await wait_for_engine(plan(directory))
        singing = asyncio.create_task(sentinel.sing(0.01))
        await sung(engine, engine.sung + songs)
        assert not singing.done()
        change()
        with pytest.raises(StrongroomError) as caught:
            await singing
        ended.append(caught.value)
        sentinel.close()

    against(directory, engine, test)
    return ended[0]


@pytest.mark.guarantee("G10")
def test_an_engine_that_begins_to_answer_otherwise_is_found(socket_dir: Path) -> None:
    engine = VLLM()

    def forget() -> None:
        engine.notes = [[0, -0.5, -2.0], [0, -0.25, -3.0]]  # as under a stale buffer: well-formed, and wrong

    error = sing_until(socket_dir, engine, forget)
    assert isinstance(error, ProtocolError) and str(error) == "engine: the canary's answer changed at token 0"


@pytest.mark.guarantee("G10")
def test_an_engine_that_hangs_is_found_although_it_calls_itself_healthy(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = VLLM()

    def hang() -> None:
        monkeypatch.setattr(canary, "CANARY_WITHIN", 0.1)
        engine.hangs = True

    error = sing_until(socket_dir, engine, hang)
    assert isinstance(error, TransportError) and "no answer in time" in str(error)


def test_an_engine_may_be_busy_for_a_while_and_not_for_ever(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "MAX_BUSY", 3)
    engine = VLLM()
    counted: list[int] = []

    def crowd() -> None:
        counted.append(engine.sung)
        engine.canary_status = 429

    error = sing_until(socket_dir, engine, crowd)
    assert isinstance(error, TransportError) and "too busy for 4 canaries in a row" in str(error)
    assert engine.sung == counted[0] + 4


@pytest.mark.guarantee("G10")
def test_a_canary_that_waits_is_no_death_while_others_get_tokens(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a crowd of long answers: whatever it takes, until nobody gets anything any more."""
    engine, looks = VLLM(), 8

    async def test() -> None:
        loop = asyncio.get_running_loop()
        heard: list[float] = []
        reached = asyncio.Event()

        def progress() -> float:
            heard.append(loop.time())
            if len(heard) >= looks:
                reached.set()
                return heard[looks - 1]
            return heard[-1]

        sentinel = await wait_for_engine(plan(socket_dir), progress=progress)
        monkeypatch.setattr(canary, "CANARY_WITHIN", 0.05)
        engine.hangs = True
        singing = asyncio.create_task(sentinel.sing(0.01))
        await reached.wait()
        assert not singing.done()
        with pytest.raises(TransportError, match="to the canary or to anybody"):
            await singing
        assert len(heard) > looks
        sentinel.close()

    against(socket_dir, engine, test)


def test_a_canary_that_waits_is_answered_in_the_end(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own count of tokens is enough: answers that are not streamed bring no byte for long."""

    class Crowded(VLLM):
        async def _metrics(self, request: Any) -> Any:
            self.tokens += 1
            self.hangs = self.tokens < 8
            if not self.hangs:
                self.go.set()
            return await super()._metrics(request)

        async def _sing(self, body: Any, choice: Any) -> Any:
            if self.hangs:
                await self.go.wait()
            return await super()._sing(body, choice)

    engine = Crowded()

    async def test() -> None:
        sentinel = await wait_for_engine(plan(socket_dir))
        monkeypatch.setattr(canary, "CANARY_WITHIN", 0.5)
        monkeypatch.setattr(canary, "LOOK", 0.1)
        engine.hangs, before = True, engine.sung
        singing = asyncio.create_task(sentinel.sing(0.01))
        await sung(engine, before + 2)
        assert engine.tokens >= 8 and not singing.done()
        singing.cancel()
        sentinel.close()

    against(socket_dir, engine, test)


def test_being_turned_away_is_no_death_while_others_get_tokens(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "MAX_BUSY", 2)
    engine = VLLM()

    async def test() -> None:
        loop, last = asyncio.get_running_loop(), [0.0]
        sentinel = await wait_for_engine(plan(socket_dir), progress=lambda: last[0] or loop.time())
        engine.canary_status, before = 429, engine.sung
        singing = asyncio.create_task(sentinel.sing(0.01))
        await sung(engine, before + 10)
        assert not singing.done()
        last[0] = loop.time()
        with pytest.raises(TransportError, match="too busy for 3 canaries in a row, and idle"):
            await singing
        sentinel.close()

    against(socket_dir, engine, test)


@pytest.mark.guarantee("G10")
def test_one_other_song_is_not_believed_and_a_second_is(socket_dir: Path) -> None:
    class Slips(VLLM):
        """Every second song is another one."""

        async def _sing(self, body: Any, choice: Any) -> Any:
            if self.sung % 2 and "token_ids" in choice:
                choice["token_ids"] = [1, 2]
            return await super()._sing(body, choice)

    slips = Slips()

    async def test() -> None:
        sentinel = await wait_for_engine(plan(socket_dir))
        before = slips.sung
        singing = asyncio.create_task(sentinel.sing(0.01))
        await sung(slips, before + 6)
        assert not singing.done()
        slips.notes = [[0, -0.5, -2.0], [0, -0.25, -3.0]]
        with pytest.raises(ProtocolError, match="changed at token 0"):
            await singing
        sentinel.close()

    against(socket_dir, slips, test)


def test_every_canary_has_a_salt_of_its_own(socket_dir: Path) -> None:
    engine = VLLM()
    with suppress(StrongroomError):
        sing_until(socket_dir, engine, lambda: setattr(engine, "canary_status", 500))
    assert len(engine.salts) == engine.sung == len(set(engine.salts))
