"""Mirrors guest/keysock/quotes.py: whose turn it is. What may be quoted is shown in test_dstack.py."""

import asyncio
from typing import Any, cast

from guest.keysock.agent import Agent, Report
from guest.keysock.machine import Machine, described
from guest.keysock.quotes import Quotes
from guest.keysock.rights import Caller, Granted, Rule
from strongroom.evidence.eventlog import EventLog
from tests.fakes.silicon import silicon
from tests.unit.guest.keysock.test_plan import PLAN


class Slow:
    """An agent that answers when told to, and counts."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.free = asyncio.Event()

    async def gpus(self, nonce: bytes) -> tuple[()]:
        await self.report(bytes(64))
        return ()

    async def evidence(self, **_: object) -> None:
        await self.report(bytes(64))

    async def report(self, report_data: bytes, *, raw: bool = False) -> Report:
        self.now += 1
        self.most = max(self.most, self.now)
        await self.free.wait()
        self.now -= 1
        return Report("snp", silicon().report(report_data), silicon().certificates(), EventLog())


def test_one_caller_waits_for_himself_and_for_nobody_else() -> None:
    async def live() -> None:
        agent: Any = Slow()
        machine = Machine.of("snp", silicon().report(bytes(64)))
        quotes = Quotes(
            cast(Agent, agent), described(PLAN, machine, EventLog(), root_public=b"", certificate="")
        )
        loud, quiet = (Granted(Caller(uid=uid), Rule()) for uid in (1, 2))
        many: list[asyncio.Task[Any]] = [
            asyncio.create_task(quotes.chosen(loud, bytes([n]))) for n in range(20)
        ]
        await asyncio.sleep(0.01)
        assert agent.now == 1
        many.append(asyncio.create_task(quotes.gpus(loud, b"")))
        many.append(asyncio.create_task(quotes.bundle(loud, nonce=b"", key=b"")))
        other = asyncio.create_task(quotes.chosen(quiet, b"x"))
        await asyncio.sleep(0.01)
        assert agent.now == 2
        many[3].cancel()
        agent.free.set()
        done = await asyncio.gather(*many, other, return_exceptions=True)
        assert sum(isinstance(one, BaseException) for one in done) == 1
        assert agent.most == 2 and not quotes._turns

    asyncio.run(live())
