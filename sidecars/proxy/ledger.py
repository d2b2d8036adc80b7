"""What receipts are made of, kept for their owners: for an hour, a bounded number for each tenant and for all."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from sidecars.proxy.plan import Tenant
from strongroom.receipts.legacy import LegacySignature

MAX_AGE: Final = 3600.0  # seconds
MAX_EACH: Final = 4096  # receipts of one tenant: a busy tenant never pushes out another's
_LOOK: Final = 1.0  # seconds
MAX_ALL: Final = 65536  # of all tenants; beyond it, whoever has most loses its oldest


@dataclass(slots=True, kw_only=True)
class Entry:
    """One answer: hashes of its bodies, and what was made of them since."""

    id: str
    served_at: int  # unix seconds
    endpoint: str
    complete: bool
    stream: bool
    cache: str
    request_sha256: bytes  # as received
    forwarded_sha256: bytes  # as given to the engine
    response_sha256: bytes  # as delivered; of a stream without its comments
    wire_sha256: bytes  # as delivered, every byte
    chat: str = ""  # what stands before `id` in the answer's own id
    index: int = -1  # in the log
    keyset_digest: str = ""
    signature: bytes | None = field(default=None, repr=False)
    legacy: dict[str, LegacySignature] = field(default_factory=dict, repr=False)


class Ledger:
    """`now` is unix time in seconds, as `served_at` is."""

    def __init__(self, *, max_age: float = MAX_AGE, max_each: int = MAX_EACH, max_all: int = MAX_ALL) -> None:
        self._max_age, self._max_each, self._max_all = max_age, max_each, max_all
        self._kept: dict[str, OrderedDict[str, Entry]] = {}
        self._count = 0
        self._next = 0.0  # when everyone's are looked through again

    def __len__(self) -> int:
        return self._count

    def keep(self, tenant: Tenant, entry: Entry, *, now: float) -> None:
        own = self._kept.setdefault(tenant.name, OrderedDict())
        self._count += entry.id not in own
        own[entry.id] = entry
        if len(own) > self._max_each:
            self._drop(own)
        if self._count > self._max_all:
            self._drop(max(self._kept.values(), key=len))
        if now >= self._next:
            self._next = now + _LOOK
            self._forget(now)

    def _forget(self, now: float) -> None:
        for name, own in list(self._kept.items()):  # of everyone: who asks no more must not keep memory
            while own and not self._holds(next(iter(own.values())), now):
                self._drop(own)
            if not own:
                del self._kept[name]

    def _drop(self, own: OrderedDict[str, Entry]) -> None:
        own.popitem(last=False)
        self._count -= 1

    def _holds(self, entry: Entry, now: float) -> bool:
        return now < entry.served_at + self._max_age

    def find(self, tenant: Tenant, id: str, *, now: float) -> Entry | None:
        """The entry, if this tenant got it within the last hour."""
        own = self._kept.get(tenant.name)
        entry = own.get(id) if own is not None else None
        return entry if entry is not None and self._holds(entry, now) else None
