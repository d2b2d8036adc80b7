"""Mirrors strongroom/host/door/turns.py."""

import asyncio

import pytest

from strongroom.host.door import turns
from strongroom.host.door.refusal import Refusal
from strongroom.host.door.turns import Turns


async def waiting(line: Turns, origins: str) -> tuple[list[str], int]:
    """Who got a turn, in order, and how many were sent away."""
    served: list[str] = []

    async def ask(origin: str) -> None:
        async with line.wait(origin.encode()):
            served.append(origin)
            await asyncio.sleep(0)

    found = await asyncio.gather(*map(ask, origins), return_exceptions=True)
    refused = [one for one in found if isinstance(one, Refusal)]
    assert all(one.status == 429 for one in refused)
    return served, len(refused)


def test_everybody_gets_a_turn_in_order() -> None:
    assert asyncio.run(waiting(Turns(), "abcab")) == (list("abcab"), 0)


def test_one_origin_cannot_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING_EACH", 2)
    assert asyncio.run(waiting(Turns(), "aaaab")) == (list("aab"), 2)


def test_a_full_line_is_full_and_then_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 3)

    async def twice() -> list[tuple[list[str], int]]:
        line = Turns()
        return [await waiting(line, "abcde"), await waiting(line, "xyz")]

    assert asyncio.run(twice()) == [(list("abc"), 2), (list("xyz"), 0)]
