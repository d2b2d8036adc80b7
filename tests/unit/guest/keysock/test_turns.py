"""Mirrors guest/keysock/turns.py."""

import asyncio
from collections.abc import Callable

import pytest

from guest.keysock.turns import Turns


def done_in(*asked: str, more: dict[str, int] | None = None) -> list[str]:
    """The callers in the order in which they were served; `more` is how often each asks again when he was."""
    turns, served, left = Turns(), list[str](), dict(more or {})

    def work(caller: str) -> Callable[[], None]:
        def serve() -> None:
            served.append(caller)
            if left.get(caller, 0):
                left[caller] -= 1
                turns.wait(caller, serve)

        return serve

    async def live() -> None:
        for caller in asked:
            turns.wait(caller, work(caller))
        for _ in range(20):  # of the loop's rounds
            await asyncio.sleep(0)
        assert turns.are_free

    asyncio.run(live())
    return served


def test_one_of_each_caller_in_every_round() -> None:
    assert done_in("a", "a", "a", "b", "c", "b") == ["a", "b", "c", "a", "b", "a"]


def test_who_always_has_more_does_not_keep_others_waiting() -> None:
    assert done_in("a", "b", more={"a": 5}) == ["a", "b", "a", "a", "a", "a", "a"]


@pytest.mark.parametrize("count", [0, 1])
def test_it_is_free_when_all_were_served(count: int) -> None:
    assert done_in(*["a"] * count) == ["a"] * count


def test_a_defect_ends_one_answer_alone() -> None:
    turns, served, told = Turns(), list[str](), list[object]()

    def broken() -> None:
        raise RuntimeError

    async def live() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        turns.wait("a", broken)
        turns.wait("a", lambda: served.append("a"))
        turns.wait("b", lambda: served.append("b"))
        for _ in range(20):  # of the loop's rounds
            await asyncio.sleep(0)
        assert turns.are_free

    asyncio.run(live())
    assert sorted(served) == ["a", "b"]
    assert len(told) == 1
