"""Bring a store up to date: ask for what is absent, out of date, or old enough that there may be news.

An outage leaves what is kept as it is, and what is kept still has to hold at the moment it is used: nothing here
can make a verifier accept more.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from strongroom.errors import FormatError, ProtocolError, TransportError, VerifyError
from strongroom.host.collateral.client import Client
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.item import Item, Signed
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.wanted import raised_by
from strongroom.verify.roots import Roots

Refusal = FormatError | ProtocolError | TransportError | VerifyError


class State(StrEnum):
    FRESH = "fresh"  # nothing was asked
    FETCHED = "fetched"
    KEPT = "kept"  # asked in vain, and what is kept still holds
    FAILED = "failed"  # asked in vain, and nothing that holds is kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went for one item."""

    item: Item
    state: State
    signed: Signed | None  # of what is kept now
    error: Refusal | None = None

    @property
    def is_trouble(self) -> bool:
        """Whether a person has to look: nothing that holds is kept, or a service gave what is not genuine."""
        return self.error is not None and (
            self.state is State.FAILED or not isinstance(self.error, TransportError)
        )


async def fill(
    items: Iterable[Item], store: Store, client: Client, *, roots: Roots, now: datetime, always: bool = False
) -> list[Outcome]:
    """One outcome for each different item, and for each its answer raises. `always`: ask for what is fresh too.

    Raises MachineError alone, when the store cannot be written.
    """
    waiting, outcomes = deque(items), dict[Item, Outcome]()
    while waiting:
        item = waiting.popleft()
        if item in outcomes:
            continue
        outcome = outcomes[item] = await _one(item, store, client, roots=roots, now=now, always=always)
        if outcome.signed is not None and (entry := store.find(item)) is not None:
            waiting += raised_by(item, entry.parts)
    return list(outcomes.values())


async def _one(
    item: Item, store: Store, client: Client, *, roots: Roots, now: datetime, always: bool
) -> Outcome:
    try:
        kept = store.examine(item, roots=roots, now=now)
    except (VerifyError, FormatError):  # expired, damaged: as if it were not there
        kept = None
    if kept is not None and not always and not kept.is_due(now):
        return Outcome(item, State.FRESH, kept)
    try:
        entry = Entry(item, await item.fetch(client.ask))
        return Outcome(item, State.FETCHED, store.put(entry, roots=roots, now=now))
    except (FormatError, ProtocolError, TransportError, VerifyError) as error:
        return Outcome(item, State.KEPT if kept else State.FAILED, kept, error)
