"""A token bucket per network: how often one peer may begin, in a table of bounded size.

A network is an IPv4 address, or the /64 that one IPv6 host can take any address of.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

MAX_ADDRESSES: Final = 4096


@dataclass(frozen=True, slots=True)
class Rate:
    per_second: float
    burst: int


def network_of(address: str) -> str:
    """What counts as one peer; text that is no address stands for itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


class Buckets:
    """Who may proceed. When the table is full the address unseen for longest is forgotten."""

    def __init__(self, rate: Rate, *, max_addresses: int = MAX_ADDRESSES) -> None:
        self._rate = rate
        self._max = max_addresses
        self._levels: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def take(self, address: str, now: datetime) -> bool:
        """Whether this address had one left; a clock that goes back gives nothing and takes nothing."""
        address = network_of(address)
        level, since = self._levels.pop(address, (float(self._rate.burst), now))
        gained = max(0.0, (now - since).total_seconds()) * self._rate.per_second
        level = min(float(self._rate.burst), level + gained)
        allowed = level >= 1
        self._levels[address] = (level - 1 if allowed else level, now)
        if len(self._levels) > self._max:
            self._levels.popitem(last=False)
        return allowed
