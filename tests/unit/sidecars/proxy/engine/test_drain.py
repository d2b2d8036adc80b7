"""Mirrors sidecars/proxy/engine/drain.py."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from sidecars.proxy.engine.drain import Gateway, State, until_drained
from strongroom.host.door.refusal import Refusal

LOG = logging.getLogger("test")


@pytest.mark.parametrize("state", [State.CLOSED, State.DRAINING])
def test_a_gate_that_is_not_open_lets_nobody_in(state: State) -> None:
    gate = Gateway()
    assert gate.state is State.CLOSED
    gate.open()
    with gate.exchange():
        gate.state = state
    with pytest.raises(Refusal, match="503 draining") as caught, gate.exchange():
        pass
    assert caught.value.headers == {"retry-after": "5"} and caught.value.last
    assert gate.running == 0


def test_those_inside_may_finish_and_nobody_follows() -> None:
    async def main() -> None:
        gate = Gateway()
        gate.open()
        inside, leave = asyncio.Event(), asyncio.Event()

        async def exchange() -> None:
            with gate.exchange():
                inside.set()
                await leave.wait()

        running = [asyncio.create_task(exchange()) for _ in range(2)]
        await inside.wait()
        draining = asyncio.create_task(gate.drain(30))
        await asyncio.sleep(0)
        assert (gate.state, gate.running) == (State.DRAINING, 2)
        with pytest.raises(Refusal, match="503 draining"), gate.exchange():
            pass
        assert not draining.done()
        leave.set()
        assert await draining
        await asyncio.gather(*running)
        assert gate.running == 0

    asyncio.run(main())


def test_the_deadline_ends_the_wait_not_the_exchange() -> None:
    async def main() -> None:
        gate = Gateway()
        gate.open()
        with gate.exchange():
            assert not await gate.drain(0.01)
            assert gate.running == 1

    asyncio.run(main())


def test_a_quiet_or_closed_gate_drains_at_once() -> None:
    async def main() -> None:
        gate = Gateway()
        assert await gate.drain(30)
        states = [gate.state]
        gate.open()
        assert await gate.drain(30)
        assert [*states, gate.state] == [State.CLOSED, State.DRAINING]

    asyncio.run(main())


def test_an_exchange_that_fails_has_left() -> None:
    gate = Gateway()
    gate.open()
    with pytest.raises(ValueError, match="boom"), gate.exchange():
        raise ValueError("boom")
    assert gate.running == 0


def lived(
    work: Callable[[], Awaitable[int]], drain: Callable[[], Awaitable[object]], *, signals: int = 1
) -> tuple[int, list[str]]:
    """The exit code of a life that gets a signal as soon as it turns, and what became of its parts."""
    told: list[str] = []

    async def life() -> int:
        try:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.01)
            return await work()
        except asyncio.CancelledError:
            told.append("cut")
            raise

    async def draining() -> None:
        told.append("draining")
        try:
            await drain()
        except asyncio.CancelledError:
            told.append("hurried")
            raise
        told.append("drained")

    return asyncio.run(until_drained(life(), draining, LOG)), told


async def for_ever() -> int:
    await asyncio.Event().wait()
    return 1


async def at_once() -> None:
    pass


def test_a_signal_drains_and_then_ends_with_0() -> None:
    assert lived(for_ever, at_once) == (0, ["draining", "drained", "cut"])


def test_a_second_signal_does_not_wait() -> None:
    assert lived(for_ever, for_ever, signals=2) == (0, ["draining", "hurried", "cut"])


def test_an_end_of_its_own_is_not_kept_waiting_by_a_drain() -> None:
    async def engine_died() -> int:
        return 75

    assert lived(engine_died, for_ever) == (75, ["draining", "hurried"])


@pytest.mark.guarantee("G14")
def test_a_defect_while_draining_ends_the_life_and_tells_only_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails() -> None:
        raise KeyError("correct horse")

    assert lived(for_ever, fails) == (0, ["draining", "cut"])
    assert "defect: KeyError at test_drain.py:" in caplog.text
    assert "horse" not in caplog.text
