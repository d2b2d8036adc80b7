"""Mirrors sidecars/proxy/tenants/admission.py, with a clock that the test sets."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.plan import Cache, Limits, Plan, QueuePlan, Tenant
from sidecars.proxy.tenants.admission import Admission
from sidecars.proxy.tenants.roll import ANONYMOUS
from sidecars.proxy.tenants.usage import Reason
from strongroom.host.door.refusal import Refusal
from tests.fakes.exchange import ENGINE, MODEL

ANN, BOB = Tenant("ann", sha256(b"a").digest()), Tenant("bob", sha256(b"b").digest())
PLAN = Plan(
    listen_host="127.0.0.1",
    listen_port=0,
    engine_socket=Path("/engine"),
    evidence_socket=Path("/evidence"),
    names=("door.example",),
    model=MODEL,
    engine=ENGINE,
    tenants=(ANN, BOB),
    cache=Cache.TENANT,
)


class House:
    """An admission under these limits, for ann and bob unless nobody has a name."""

    def __init__(
        self, *, limits: Limits | None = None, queue: QueuePlan | None = None, named: bool = True
    ) -> None:
        self.now = 1000.0
        limits = limits or Limits()
        self.ann, self.bob = replace(ANN, limits=limits), replace(BOB, limits=limits)
        tenants = (self.ann, self.bob) if named else ()
        plan = replace(PLAN, tenants=tenants, limits=limits, queue=queue or QueuePlan())
        self.admission = Admission(plan, salt_key=bytes(32), since=7, clock=lambda: self.now)

    async def passes(self, tenant: Tenant, weight: int = 1) -> None:
        async with self.admission.place(tenant, weight):
            pass

    async def refused(self, tenant: Tenant, weight: int = 1) -> tuple[int, str]:
        with pytest.raises(Refusal) as caught:
            await self.passes(tenant, weight)
        return caught.value.status, caught.value.headers["retry-after"]

    async def queued(self, count: int) -> None:
        await asyncio.sleep(0)  # every task that was made runs until it waits
        assert self.admission.waiting == count


def held(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_places_are_bounded_for_each_and_for_all() -> None:
    house = House(limits=Limits(concurrent=2), queue=QueuePlan(places=3))

    async def story() -> None:
        async with AsyncExitStack() as inside:
            for tenant in (house.ann, house.ann, house.bob):
                await inside.enter_async_context(house.admission.place(tenant))
            assert house.admission.running == 3
            assert await house.refused(house.ann) == (429, "1")
            assert await house.refused(house.bob) == (429, "1")
        await house.passes(house.ann)
        assert house.admission.running == 0
        assert house.admission.refused == {Reason.LINE: 2}

    held(story())


def test_a_place_is_given_back_after_whatever_happened_inside() -> None:
    house = House(queue=QueuePlan(places=1))

    async def story() -> None:
        for error in (ValueError(), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with house.admission.place(house.ann):
                    raise error
        await house.passes(house.bob)

    held(story())


def test_requests_a_minute() -> None:
    house = House(limits=Limits(requests_per_minute=2))

    async def story() -> None:
        await house.passes(house.ann)
        await house.passes(house.ann)
        assert await house.refused(house.ann) == (429, "30")
        await house.passes(house.bob)
        house.now += 29.5
        assert await house.refused(house.ann) == (429, "1")
        house.now += 0.5
        await house.passes(house.ann)
        assert house.admission.refused == {Reason.REQUESTS: 2}

    held(story())


def test_tokens_a_minute_are_known_afterwards_and_made_up() -> None:
    house = House(limits=Limits(tokens_per_minute=600))

    async def story() -> None:
        await house.passes(house.ann)
        house.admission.spent(house.ann, prompt=500, completion=699)
        assert await house.refused(house.ann) == (429, "60")
        await house.passes(house.bob)
        house.now += 60
        await house.passes(house.ann)
        assert house.admission.refused == {Reason.TOKENS: 1}

    held(story())


def test_the_line_gives_places_in_turn() -> None:
    house = House(queue=QueuePlan(places=1, length=2, seconds=30))

    async def story() -> None:
        order: list[str] = []

        async def one(tenant: Tenant) -> None:
            async with house.admission.place(tenant):
                order.append(tenant.name)

        async with asyncio.TaskGroup() as group, house.admission.place(house.ann):
            for tenant in (house.ann, house.ann, house.bob):
                group.create_task(one(tenant))
            await house.queued(3)
            assert await house.refused(house.ann) == (429, "30")
            assert order == []
        assert order == ["ann", "bob", "ann"]
        assert (house.admission.running, house.admission.waiting) == (0, 0)

    held(story())


def test_patience_ends() -> None:
    house = House(queue=QueuePlan(places=1, length=1, seconds=0))

    async def story() -> None:
        async with house.admission.place(house.ann):
            assert await house.refused(house.bob) == (429, "1")
        assert house.admission.refused == {Reason.PATIENCE: 1}
        assert house.admission.waiting == 0
        await house.passes(house.bob)

    held(story())


@pytest.mark.parametrize("at", ["in line", "with a place just given"])
def test_who_leaves_the_line_leaves_no_trace(at: str) -> None:
    house = House(queue=QueuePlan(places=1, length=1, seconds=30))

    async def story() -> None:
        async with house.admission.place(house.ann):
            waits = asyncio.create_task(house.passes(house.bob))
            await house.queued(1)
            if at == "in line":
                waits.cancel()
        waits.cancel()  # the place was given, and it has not run since
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert (house.admission.running, house.admission.waiting) == (0, 0)
        await house.passes(house.ann)

    held(story())


def test_waiting_is_no_way_around_the_rate() -> None:
    house = House(limits=Limits(requests_per_minute=2), queue=QueuePlan(places=1, length=8, seconds=30))

    async def story() -> None:
        async with asyncio.TaskGroup() as group, house.admission.place(house.ann):
            group.create_task(house.passes(house.ann))
            await house.queued(1)
            assert await house.refused(house.ann) == (429, "30")

    held(story())


def test_draining_lets_nobody_in_and_those_inside_finish() -> None:
    house = House(queue=QueuePlan(places=1, length=1, seconds=30))

    async def story() -> None:
        async with house.admission.place(house.ann):
            waits = asyncio.create_task(house.refused(house.bob))
            await house.queued(1)
            house.admission.drain()
            house.admission.drain()
            assert await waits == (503, "5")
            assert await house.refused(house.ann) == (503, "5")
            assert (house.admission.running, house.admission.waiting) == (1, 0)
        assert house.admission.running == 0

    held(story())


@pytest.mark.parametrize(("limits", "most"), [(Limits(), 3), (Limits(concurrent=64), 4)])
def test_one_of_several_tenants_has_half_and_never_what_another_needs(limits: Limits, most: int) -> None:
    house = House(limits=limits, queue=QueuePlan(places=5))

    async def story() -> None:
        async with AsyncExitStack() as inside:
            for _ in range(most):
                await inside.enter_async_context(house.admission.place(house.ann))
            assert await house.refused(house.ann) == (429, "1")
            for _ in range(5 - most):
                await inside.enter_async_context(house.admission.place(house.bob))
            assert await house.refused(house.bob) == (429, "1")

    held(story())
    usage = house.admission.usage(house.ann)
    assert isinstance(usage, dict) and usage["limits"] == {
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "concurrent": limits.concurrent or most,
    }


@pytest.mark.parametrize("named", [True, False])
def test_whoever_is_alone_may_have_every_place(named: bool) -> None:
    house = House(queue=QueuePlan(places=3), named=False)
    plan = replace(PLAN, tenants=(house.ann,) if named else (), queue=QueuePlan(places=3))
    admission = Admission(plan, salt_key=bytes(32), since=7)
    tenant = house.ann if named else ANONYMOUS

    async def story() -> None:
        async with AsyncExitStack() as inside:
            for _ in range(3):
                await inside.enter_async_context(admission.place(tenant))
            with pytest.raises(Refusal, match="429"):
                async with admission.place(tenant):
                    pass

    held(story())


def test_a_request_for_several_answers_is_so_many_requests() -> None:
    house = House(limits=Limits(requests_per_minute=4, concurrent=3), queue=QueuePlan(places=4))

    async def story() -> None:
        async with house.admission.place(house.ann, 2):
            assert house.admission.running == 2
            assert await house.refused(house.ann, 2) == (429, "1")  # of three places it has two
        assert house.admission.running == 0
        await house.passes(house.ann, 2)
        assert await house.refused(house.ann) == (429, "15")
        assert house.admission.refused == {Reason.LINE: 1, Reason.REQUESTS: 1}

    held(story())
    usage = house.admission.usage(house.ann)
    assert isinstance(usage, dict) and (usage["requests"], usage["refused"]) == (2, 2)


@pytest.mark.parametrize(
    ("limits", "places", "most"),
    [
        (Limits(concurrent=2), 9, 2),
        (Limits(concurrent=64), 9, 8),  # the last one is kept
        (Limits(requests_per_minute=3), 9, 3),
        (Limits(), 9, 5),
        (Limits(), 1, 1),
    ],
)
def test_more_answers_than_there_ever_are_is_refused_for_good(limits: Limits, places: int, most: int) -> None:
    house = House(limits=limits, queue=QueuePlan(places=places, length=8, seconds=30))

    async def story() -> None:
        await house.passes(house.ann, most)
        house.now += 60
        with pytest.raises(Refusal) as caught:
            await house.passes(house.ann, most + 1)
        refusal = caught.value
        assert (refusal.status, refusal.code) == (400, "too_many_answers")
        assert refusal.message == f"the request is for {most + 1} answers at once, want at most {most}"
        assert (house.admission.running, house.admission.waiting) == (0, 0)

    held(story())


def test_usage_is_a_tenants_own() -> None:
    house = House(limits=Limits(requests_per_minute=3, concurrent=5))

    async def story() -> None:
        await house.passes(house.ann)
        house.admission.spent(house.ann, prompt=11, completion=22)
        house.admission.spent(house.ann, prompt=1, completion=2)

    held(story())
    assert house.admission.usage(house.ann) == {
        "object": "usage",
        "since": 7,
        "requests": 1,
        "refused": 0,
        "prompt_tokens": 12,
        "completion_tokens": 24,
        "total_tokens": 36,
        "limits": {"requests_per_minute": 3, "tokens_per_minute": None, "concurrent": 5},
        "left": {"requests": 2, "tokens": None},
    }
    usage = house.admission.usage(house.bob)
    assert isinstance(usage, dict) and (usage["requests"], usage["total_tokens"]) == (0, 0)


def test_debts_are_shown_as_nothing_left() -> None:
    house = House(limits=Limits(tokens_per_minute=10))
    house.admission.spent(house.ann, prompt=50, completion=50)
    usage = house.admission.usage(house.ann)
    assert isinstance(usage, dict) and usage["left"] == {"requests": None, "tokens": 0}


def test_the_anonymous_share_one_limit_and_see_no_usage() -> None:
    house = House(limits=Limits(requests_per_minute=1), named=False)

    async def story() -> None:
        tenant = house.admission.admit(None, None)
        assert tenant is ANONYMOUS
        await house.passes(tenant)
        assert await house.refused(tenant) == (429, "60")
        house.admission.spent(tenant, prompt=1, completion=1)
        with pytest.raises(Refusal, match="404"):
            house.admission.usage(tenant)

    held(story())


def test_tenants_are_admitted_and_salted() -> None:
    house = House()
    assert house.admission.admit(b"Bearer b", None) is house.bob
    assert house.admission.salt(house.ann, namespace="") == house.admission.salt(house.ann, namespace="")
    assert house.admission.salt(ANONYMOUS, namespace="") != house.admission.salt(ANONYMOUS, namespace="")
