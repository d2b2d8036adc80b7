"""A cable between this machine and the guest: a network namespace with one end of a veth pair, nothing routed.

Addresses come from TEST-NET-1 (RFC 5737), so that no real network is hidden while the demo runs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from strongroom.host.run import run

_LINKS: Final = 63  # /30 networks in the /24, less the first


@dataclass(frozen=True, slots=True)
class Cable:
    namespace: str  # name below /run/netns; the guest lives inside
    outside: str  # this machine's address
    inside: str  # the guest's address


@contextmanager
def cable() -> Iterator[Cable]:
    """A fresh namespace wired to this machine; gone on leaving. Raises MachineError (needs root and veth)."""
    pid = os.getpid()
    slot = pid % _LINKS + 1
    made = Cable(f"strongroom-{pid}", f"192.0.2.{4 * slot - 3}", f"192.0.2.{4 * slot - 2}")
    near, far = f"srh{pid}", f"srg{pid}"
    _ip("netns", "add", made.namespace)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", made.namespace)
        _ip("address", "add", f"{made.outside}/30", "dev", near)
        _ip("link", "set", near, "up")
        inside = ("-netns", made.namespace)
        _ip(*inside, "address", "add", f"{made.inside}/30", "dev", far)
        _ip(*inside, "link", "set", far, "up")
        _ip(*inside, "link", "set", "lo", "up")
        yield made
    finally:
        run(["ip", "link", "delete", near], check=False)
        run(["ip", "netns", "delete", made.namespace], check=False)


def _ip(*words: str) -> None:
    run(["ip", *words])
