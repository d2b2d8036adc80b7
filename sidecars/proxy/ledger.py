"""Receipts kept for their owners: for an hour, a bounded number for each tenant, in memory only."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from sidecars.proxy.plan import Tenant
from strongroom.receipts.receipt import SignedReceipt

MAX_AGE: Final = 3600.0  # seconds
MAX_EACH: Final = 4096  # receipts of one tenant: a busy tenant never pushes out another's


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    signed: SignedReceipt


class Ledger:
    """`now` is any clock that only goes forward, in seconds."""

    def __init__(self, *, max_age: float = MAX_AGE, max_each: int = MAX_EACH) -> None:
        self._max_age, self._max_each = max_age, max_each
        self._kept: dict[str, OrderedDict[str, _Kept]] = {}

    def keep(self, tenant: Tenant, signed: SignedReceipt, *, now: float) -> None:
        own = self._kept.setdefault(tenant.name, OrderedDict())
        own[signed.receipt.id] = _Kept(now + self._max_age, signed)
        if len(own) > self._max_each:
            own.popitem(last=False)
        self._forget(now)

    def _forget(self, now: float) -> None:
        for name, own in list(self._kept.items()):  # of everyone: who asks no more must not keep memory
            while own and next(iter(own.values())).until <= now:
                own.popitem(last=False)
            if not own:
                del self._kept[name]

    def find(self, tenant: Tenant, id: str, *, now: float) -> SignedReceipt | None:
        """The receipt, if this tenant got it within the last hour."""
        own = self._kept.get(tenant.name)
        kept = own.get(id) if own is not None else None
        return kept.signed if kept is not None and kept.until > now else None
