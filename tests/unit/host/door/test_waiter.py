"""Mirrors strongroom/host/door/waiter.py."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from strongroom.host.door.waiter import Waiter


def on_a_loop(work: Callable[[Waiter], Awaitable[None]]) -> None:
    async def main() -> None:
        waiter = Waiter(asyncio.get_running_loop())
        try:
            await work(waiter)
        finally:
            waiter.close()

    asyncio.run(main())


def test_it_ends_when_it_is_woken() -> None:
    async def work(waiter: Waiter) -> None:
        for within in (None, 60.0):
            asyncio.get_running_loop().call_soon(waiter.wake)
            await waiter.wait(within)
        waiter.wake()  # nobody waits

    on_a_loop(work)


def test_it_ends_when_the_time_is_up_and_works_on() -> None:
    async def work(waiter: Waiter) -> None:
        for within in (0.02, 0.0, -1.0):
            with pytest.raises(TimeoutError):
                await waiter.wait(within)
        asyncio.get_running_loop().call_soon(waiter.wake)
        await waiter.wait(0.02)

    on_a_loop(work)


def test_an_armed_timer_serves_later_waits_and_shorter_ones() -> None:
    async def work(waiter: Waiter) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(waiter.wake)
        await waiter.wait(0.02)
        begun = loop.time()
        with pytest.raises(TimeoutError):  # the timer of the first wait fires within this one, and too early
            await waiter.wait(0.08)
        assert loop.time() - begun >= 0.07
        loop.call_soon(waiter.wake)
        await waiter.wait(3600)
        with pytest.raises(TimeoutError):
            await waiter.wait(0.01)

    on_a_loop(work)


def test_a_wait_may_be_extended() -> None:
    async def work(waiter: Waiter) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        waiting = waiter.wait(0.02)
        waiter.extend(begun + 0.08)
        with pytest.raises(TimeoutError):
            await waiting
        assert loop.time() - begun >= 0.07

    on_a_loop(work)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def work(waiter: Waiter) -> None:
        async def wait() -> None:
            await waiter.wait(0.01)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.sleep(0.03)  # its timer fires, for nobody
        waiter.wake()

    on_a_loop(work)
