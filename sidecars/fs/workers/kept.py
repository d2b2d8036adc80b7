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
from sidecars.fs.mounting import is_mounted, leave
from sidecars.fs.protocol.frames import InitFlag
from strongroom.errors import StrongroomError
from strongroom.host import notify
from strongroom.wire.canonical import pack_json, parse_json

_NAMES: Final = ("device", "clone", "memory", "agreement")
_MAX_AGREEMENT: Final = 4096  # bytes
_FIELDS: Final = {"mount": str, "identity": str, "minor": int, "flags": int}


@dataclass(slots=True)
class Held:
    """A mounted device, a clone for each worker, and what they were mounted with."""

    device: int
    terms: Terms
    clones: list[int] = field(default_factory=list)
    memory: int | None = None

    def add_clone(self, *, kept: bool) -> None:
        """One more; with `kept` the service manager has the others already."""
        self.clones.append(fuse.clone(self.device))
        if kept:
            notify.keep("clone", self.clones[-1])

    def keep(self, *, mount: Path, identity: str) -> None:
        """Give a copy of everything to the service manager. Nothing happens where there is none."""
        notify.keep("device", self.device)
        for clone in self.clones:
            notify.keep("clone", clone)
        if self.memory is not None:
            notify.keep("memory", self.memory)
        agreement = os.memfd_create("agreement")
        try:
            os.write(
                agreement,
                pack_json(
                    {
                        "mount": str(mount),
                        "identity": identity,
                        "minor": self.terms.minor,
                        "flags": int(self.terms.flags),
                    }
                ),
            )
            notify.keep("agreement", agreement)
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
    identity: str = ""
    terms: Terms | None = None

    @classmethod
    def find(cls, inherited: Callable[[], Mapping[str, Sequence[int]]] = notify.inherited) -> Self:
        left = cls({name: found for name, found in inherited().items() if name in _NAMES})
        for descriptor in left.descriptors.get("agreement", ()):
            left._read(descriptor)
        return left

    def adopt(self, *, mount: Path, identity: str) -> Held | None:
        """The predecessor's mount, if it is this very one and still there; else everything of it is given up."""
        devices, clones = self.descriptors.get("device", ()), self.descriptors.get("clone", ())
        memory = self.descriptors.get("memory", ())
        if (
            self.terms is None
            or not self.terms.resend
            or (self.mount, self.identity) != (mount, identity)
            or (len(devices), len(memory)) not in ((1, 0), (1, 1))
            or not clones
            or not fuse.is_connected(devices[0])
            or not is_mounted(mount)
        ):
            self.give_up()
            return None
        for descriptor in self.descriptors["agreement"]:
            os.close(descriptor)
        return Held(devices[0], self.terms, list(clones), memory[0] if memory else None)

    def give_up(self) -> None:
        """Unmount it, and have nobody hold it any longer: its readers get an error now."""
        if not self.descriptors:
            return
        if self.mount is not None:
            leave(self.mount)
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
        minor, flags = raw["minor"], raw["flags"]
        assert isinstance(minor, int) and isinstance(flags, int)
        self.terms = Terms(minor, InitFlag(flags))


def forget() -> None:
    """Have the service manager close what it keeps of us."""
    for name in _NAMES:
        notify.let_go(name)
