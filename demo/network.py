"""A cable between this machine and the guest: a network namespace with one end of a veth pair, nothing routed.

Addresses come from TEST-NET-1 (RFC 5737), so that no real network is hidden while the demo runs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pyroute2
from pyroute2 import netns
from pyroute2.netlink.exceptions import NetlinkError

from strongroom.errors import MachineError

_PREFIX: Final = 30
_LINKS: Final = 63  # /30 networks in the /24, less the first


@dataclass(frozen=True, slots=True)
class Cable:
    namespace: str  # name below /run/netns; the guest lives inside
    outside: str  # this machine's address
    inside: str  # the guest's address


@contextmanager
def cable() -> Iterator[Cable]:
    """A fresh namespace wired to this machine; gone on leaving. Raises MachineError (needs root and veth)."""
    slot = os.getpid() % _LINKS + 1
    made = Cable(f"strongroom-{os.getpid()}", f"192.0.2.{4 * slot - 3}", f"192.0.2.{4 * slot - 2}")
    near, far = f"srh{os.getpid()}", f"srg{os.getpid()}"
    try:
        netns.create(made.namespace)
        with pyroute2.IPRoute() as here, pyroute2.NetNS(made.namespace) as there:
            here.link("add", ifname=near, kind="veth", peer={"ifname": far, "net_ns_fd": made.namespace})
            index = here.link_lookup(ifname=near)[0]
            here.addr("add", index=index, address=made.outside, prefixlen=_PREFIX)
            here.link("set", index=index, state="up")
            index = there.link_lookup(ifname=far)[0]
            there.addr("add", index=index, address=made.inside, prefixlen=_PREFIX)
            there.link("set", index=index, state="up")
            there.link("set", index=1, state="up")
    except (OSError, NetlinkError) as error:
        with suppress(OSError):
            netns.remove(made.namespace)
        raise MachineError(f"network: cannot wire a namespace: {error}") from error
    try:
        yield made
    finally:
        with suppress(OSError, NetlinkError), pyroute2.IPRoute() as here:
            here.link("del", ifname=near)
        with suppress(OSError):
            netns.remove(made.namespace)
