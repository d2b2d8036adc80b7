"""Everything a request needs before the engine hears of it: who asks, whether they may, and a place.

admit   who it is, or 401
place   what the limits leave, or 429 with how long to wait; then a place for every answer that the request is for, at
        once or in line, or 429; 400 for more than there ever are
spent   what the answer cost; a tenant that spent more than it had waits until that is made up
"""

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final

from sidecars.proxy.plan import Limits, Plan, Tenant
from sidecars.proxy.tenants.bucket import Bucket
from sidecars.proxy.tenants.places import Places
from sidecars.proxy.tenants.roll import ANONYMOUS, Roll
from sidecars.proxy.tenants.salts import Salts
from sidecars.proxy.tenants.usage import Reason, Usage
from strongroom.host.door.refusal import Refusal, not_found, too_busy
from strongroom.wire.canonical import JSON

MAX_WAITING: Final = 512  # requests of all tenants: each holds a connection
MAX_RETRY: Final = 30  # seconds, as told to those who waited in vain
DRAINED: Final = 5  # seconds, as told while draining
_SAYS: Final = {
    Reason.REQUESTS: "too many requests in the last minute",
    Reason.TOKENS: "too many tokens in the last minute",
    Reason.LINE: "too many requests in flight",
    Reason.PATIENCE: "no place got free in time",
}


class Account:
    """One tenant's: what it may, what it has left, what it used. `share` is of places, where its limits say nothing."""

    __slots__ = ("concurrent", "limits", "name", "requests", "tokens", "usage")

    def __init__(self, name: str, limits: Limits, *, share: int, now: float, since: int) -> None:
        self.name, self.limits = name, limits
        self.concurrent = share if limits.concurrent is None else limits.concurrent
        self.requests = _bucket(limits.requests_per_minute, now)
        self.tokens = _bucket(limits.tokens_per_minute, now)
        self.usage = Usage(since)

    @property
    def most(self) -> int:
        """Answers that one request may ask for."""
        return min(self.concurrent, self.limits.requests_per_minute or self.concurrent)

    def exceeds(self, now: float, weight: int) -> tuple[Reason, float] | None:
        """The first limit that is reached, and in how many seconds it no longer is."""
        if self.tokens is not None and (seconds := self.tokens.wait(1, now)):
            return Reason.TOKENS, seconds
        if self.requests is not None and (seconds := self.requests.wait(weight, now)):
            return Reason.REQUESTS, seconds
        return None

    def charge(self, now: float, weight: int) -> None:
        """A request for so many answers."""
        if self.requests is not None:
            self.requests.spend(weight, now)


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now=now)


class Admission:
    """`clock` only goes forward, in seconds; `since` is the unix time at which it begins to count."""

    def __init__(
        self, plan: Plan, *, salt_key: bytes, since: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._roll = Roll(plan.tenants)
        self._salts = Salts(salt_key, cache=plan.cache, random=secrets.token_bytes)
        self._queue = plan.queue
        several = [(tenant.name, tenant.limits) for tenant in plan.tenants]
        queue = plan.queue
        self._places = Places(
            most=queue.places, length=queue.length, lengths=MAX_WAITING, tenants=len(several)
        )
        share = (queue.places + 1) // 2 if len(several) > 1 else queue.places
        self._lines = set[asyncio.Future[None]]()
        self._draining = False
        self._accounts = {
            name: Account(name, limits, share=share, now=clock(), since=since)
            for name, limits in several or [(ANONYMOUS.name, plan.limits)]
        }
        self.refused = Counter[Reason]()

    @property
    def running(self) -> int:
        """Answers that have a place."""
        return self._places.taken

    @property
    def waiting(self) -> int:
        """Requests that stand in line for one."""
        return self._places.waiting

    @property
    def usages(self) -> Iterable[tuple[str, Usage]]:
        """Every tenant's, by name."""
        return ((name, account.usage) for name, account in self._accounts.items())

    def admit(self, authorization: bytes | None, certificate: bytes | None) -> Tenant:
        """As of Roll.admit()."""
        return self._roll.admit(authorization, certificate)

    def salt(self, tenant: Tenant, *, namespace: str, user: str = "") -> str:
        """As of Salts.salt()."""
        return self._salts.salt(tenant, namespace=namespace, user=user)

    def place(self, tenant: Tenant, weight: int = 1) -> "Place":
        """Hold it with `async with` while `weight` answers are given.

        Refusal 429 where limits say so, 400 where they would for ever, 503 while draining.
        """
        return Place(self, self._accounts[tenant.name], weight)

    def spent(self, tenant: Tenant, *, prompt: int, completion: int) -> None:
        """Charge tokens: of whole answers what the engine counted, of broken ones what was seen."""
        account = self._accounts[tenant.name]
        account.usage.prompt_tokens += prompt
        account.usage.completion_tokens += completion
        if account.tokens is not None:
            account.tokens.spend(prompt + completion, self._clock())

    def usage(self, tenant: Tenant) -> JSON:
        """What GET /v1/usage answers. Refusal 404 for the anonymous, who have nothing of their own."""
        if tenant is ANONYMOUS:
            raise not_found()
        account, now = self._accounts[tenant.name], self._clock()
        answer = account.usage.to_json()
        answer["limits"] = {
            "requests_per_minute": account.limits.requests_per_minute,
            "tokens_per_minute": account.limits.tokens_per_minute,
            "concurrent": account.concurrent,
        }
        answer["left"] = {
            "requests": None if account.requests is None else math.floor(account.requests.level(now)),
            "tokens": None if account.tokens is None else max(0, math.floor(account.tokens.level(now))),
        }
        return answer

    def drain(self) -> None:
        """Let nobody in any more: who waits gets 503 now, who comes gets it at once. Who is inside may finish."""
        self._draining = True
        for turn in self._lines:
            if not turn.done():
                turn.set_exception(_drained())

    async def enter(self, account: Account, weight: int) -> None:
        """Take so many places. Every return is paid back by one leave()."""
        if self._draining:
            raise _drained()
        self._require_possible(account, weight)
        now = self._clock()
        if exceeded := account.exceeds(now, weight):
            reason, seconds = exceeded
            raise self._refusal(account, reason, seconds)
        if self._places.take(account.name, account.concurrent, weight):
            account.charge(now, weight)
        else:
            await self._in_line(account, now, weight)
        account.usage.requests += 1

    def leave(self, account: Account, weight: int) -> None:
        self._places.leave(account.name, weight)

    def _require_possible(self, account: Account, weight: int) -> None:
        """Refusal 400 for more answers than this tenant may ever be given at once."""
        most = min(account.most, self._places.largest)
        if weight > most:
            raise Refusal(
                400, "too_many_answers", f"the request is for {weight} answers at once, want at most {most}"
            )

    async def _in_line(self, account: Account, now: float, weight: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        waiting = self._places.join(account.name, account.concurrent, lambda: _wake(turn), weight)
        if waiting is None:
            raise self._refusal(account, Reason.LINE, self._queue.seconds if self._queue.length else 1)
        account.charge(now, weight)  # now, or a line would be a way around the limit
        self._lines.add(turn)
        try:
            async with asyncio.timeout(self._queue.seconds):
                await turn
        except TimeoutError:
            self._places.give_up(waiting)
            raise self._refusal(account, Reason.PATIENCE, self._queue.seconds) from None
        except BaseException:
            self._places.give_up(waiting)
            raise
        finally:
            self._lines.discard(turn)

    def _refusal(self, account: Account, reason: Reason, seconds: float) -> Refusal:
        self.refused[reason] += 1
        account.usage.refused += 1
        most = MAX_RETRY if reason in {Reason.LINE, Reason.PATIENCE} else seconds
        return too_busy(_SAYS[reason], seconds=max(1, math.ceil(min(seconds, most))))


class Place:
    __slots__ = ("_account", "_admission", "_weight")

    def __init__(self, admission: Admission, account: Account, weight: int) -> None:
        self._admission, self._account, self._weight = admission, account, weight

    async def __aenter__(self) -> None:
        await self._admission.enter(self._account, self._weight)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self._account, self._weight)


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # refused while draining, or cancelled: whoever waited gives the place up
        turn.set_result(None)


def _drained() -> Refusal:
    return Refusal(
        503, "draining", "this machine finishes what it began and takes nothing new",
        headers={"retry-after": str(DRAINED)},
    )  # fmt: skip
