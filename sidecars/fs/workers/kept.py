"""What outlives a daemon that is killed: its descriptors, in the service manager's store, and the terms of its mount.

    device      the descriptor that was mounted
    clone       one for each worker
    memory      the files in memory, where there are any (resident/memory.py)
    agreement   what this belongs to and what was agreed with the kernel, as JSON in a memfd; stored last

While any of the first two is open somewhere the mount lives: readers wait until whoever comes next adopts all of it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from sidecars.fs import device as fuse
from sidecars.fs.device import Terms
from sidecars.fs.mounting import TYPE, Mounted, find, leave
from sidecars.fs.protocol.frames import InitFlag
from strongroom.errors import StrongroomError
from strongroom.host import notify
from strongroom.wire.canonical import pack_json, parse_json

_NAMES: Final = ("device", "clone", "memory", "agreement")
_MAX_AGREEMENT: Final = 4096  # bytes
_FIELDS: Final = {"mount": str, "id": int, "device": str, "identity": str, "minor": int, "flags": int}


@dataclass(slots=True)
class Held:
    """A mounted device, a clone for each worker, and what they were mounted with."""

    device: int
    terms: Terms
    mounted: Mounted
    clones: list[int] = field(default_factory=list)
    memory: int | None = None

    def add_clone(self, *, kept: bool) -> bool:
        """One more; with `kept` the service manager has the others already. False when it did not take this one."""
        self.clones.append(fuse.clone(self.device))
        return not kept or notify.keep("clone", self.clones[-1])

    def keep(self, *, mount: Path, identity: str) -> bool:
        """Give a copy of everything to the service manager. False when it did not take all of it."""
        everything = [("device", self.device), *(("clone", clone) for clone in self.clones)]
        if self.memory is not None:
            everything.append(("memory", self.memory))
        if not all(notify.keep(name, descriptor) for name, descriptor in everything):
            return False
        agreement = os.memfd_create("agreement")
        try:
            os.write(
                agreement,
                pack_json(
                    {
                        "mount": str(mount),
                        "id": self.mounted.id,
                        "device": self.mounted.device,
                        "identity": identity,
                        "minor": self.terms.minor,
                        "flags": int(self.terms.flags),
                    }
                ),
            )
            return notify.keep("agreement", agreement)
        finally:
            os.close(agreement)

    def close(self) -> None:
        for descriptor in (*self.clones, self.device, *([] if self.memory is None else [self.memory])):
            os.close(descriptor)


@dataclass(slots=True)
class Left:
    """What a predecessor left: nothing, a part of it, or all."""

    descriptors: Mapping[str, Sequence[int]]
    mount: Path | None = None
    mounted: Mounted | None = None
    identity: str = ""
    terms: Terms | None = None

    @classmethod
    def find(cls, inherited: Callable[[], Mapping[str, Sequence[int]]] = notify.inherited) -> Self:
        left = cls({name: found for name, found in inherited().items() if name in _NAMES})
        for descriptor in left.descriptors.get("agreement", ()):
            left._read(descriptor)
        return left

    def adopt(self, *, mount: Path, identity: str) -> Held | None:
        """The predecessor's mount, if it is this very one and still there; else everything of it is given up.

        MachineError, with nothing given up, while another mount hides it: whoever made that one is not ours to end.
        """
        devices, clones = self.descriptors.get("device", ()), self.descriptors.get("clone", ())
        memory = self.descriptors.get("memory", ())
        if (
            self.terms is None
            or self.mounted is None
            or not self.terms.resend
            or (self.mount, self.identity) != (mount, identity)
            or (len(devices), len(memory)) not in ((1, 0), (1, 1))
            or not clones
            or not fuse.is_connected(devices[0])
            or find(mount) != self.mounted
        ):
            self.give_up()
            return None
        for descriptor in self.descriptors["agreement"]:
            os.close(descriptor)
        return Held(devices[0], self.terms, self.mounted, list(clones), memory[0] if memory else None)

    def give_up(self) -> None:
        """Unmount it, and have nobody hold it any longer: its readers get an error now.

        MachineError, with nothing given up, where another mount hides it.
        """
        if not self.descriptors:
            return
        if self.mount is not None and self.mounted is not None:
            leave(self.mount, self.mounted)
        self.let_go()

    def let_go(self) -> None:
        """Have nobody hold it any longer, and leave the mount as it is."""
        forget()
        for found in self.descriptors.values():
            for descriptor in found:
                os.close(descriptor)
        self.descriptors = {}

    def _read(self, descriptor: int) -> None:
        try:
            raw = parse_json(os.pread(descriptor, _MAX_AGREEMENT, 0), "agreement", max_bytes=_MAX_AGREEMENT)
        except (StrongroomError, OSError):
            return
        if not isinstance(raw, dict) or {key: type(value) for key, value in raw.items()} != _FIELDS:
            return
        self.mount, self.identity = Path(str(raw["mount"])), str(raw["identity"])
        minor, flags, number = raw["minor"], raw["flags"], raw["id"]
        assert isinstance(minor, int) and isinstance(flags, int) and isinstance(number, int)
        self.mounted = Mounted(number, str(raw["device"]), TYPE)
        self.terms = Terms(minor, InitFlag(flags))


def forget() -> None:
    """Have the service manager close what it keeps of us."""
    for name in _NAMES:
        notify.let_go(name)
