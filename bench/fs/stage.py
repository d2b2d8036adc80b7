"""One folder of plain files and every way to it, mounted side by side. What cannot be had here is named, with why."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench.fs import ours, peers
from bench.fs.mounts import KERNEL_READ_AHEAD, RAISED_READ_AHEAD, Mounted, Subject, standing
from bench.fs.names import (
    COLD,
    DEBIAN,
    GOCRYPTFS,
    GOCRYPTFS_COLD,
    GOCRYPTFS_LIVE,
    NEWEST,
    NULL,
    PASSTHROUGH,
    PLAIN,
    RAISED,
    RCLONE,
    SECUREFS,
    SPLICE,
    WARM,
)
from strongroom.errors import StrongroomError

Mounting = AbstractContextManager[Mounted]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part works: `work` holds its volumes and mounts, `cache` what is kept from run to run."""

    work: Path
    cache: Path

    def below(self, name: str) -> "Place":
        folder = self.work / name
        folder.mkdir()
        return Place(folder, self.cache)


@dataclass(slots=True)
class Stage:
    """The subjects of one part and what they stand on, each made when it is first asked for."""

    place: Place
    plain: Path
    stack: ExitStack
    subjects: list[Subject] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    daemons: dict[str, Mounted] = field(default_factory=dict)
    _peers: dict[str, peers.Peer] = field(default_factory=dict)
    _volumes: dict[str, ours.Volume] = field(default_factory=dict)
    _filled: set[Path] = field(default_factory=set)

    @property
    def versions(self) -> dict[str, str]:
        return {name: peer.version for name, peer in self._peers.items()}

    def subject(self, name: str, *, raised_too: bool) -> Subject:
        """One way to the files. Raises MachineError when it cannot be had here."""
        base = name.removesuffix(RAISED)
        if name == PLAIN:
            return standing(name, Mounted(self.plain))
        if name == COLD:
            return Subject(name, partial(ours.resident_cold, self.sealed(), self._point(name)))
        if name == GOCRYPTFS_COLD:
            return Subject(name, partial(ours.resident_cold, self.encrypted(), self._point(name)))
        read_ahead = RAISED_READ_AHEAD if name != base else KERNEL_READ_AHEAD if raised_too else None
        return standing(name, self.mounted(base), read_ahead)

    def mounted(self, name: str) -> Mounted:
        """The mount of that name, which lasts as long as the stage."""
        if name not in self.daemons:
            self.daemons[name] = self.stack.enter_context(self._mounting(name, self._point(name)))
        return self.daemons[name]

    def sealed(self) -> ours.Volume:
        if "sealed" not in self._volumes:
            self._volumes["sealed"] = ours.seal(self.plain, self._folder("sealed"))
        return self._volumes["sealed"]

    def encrypted(self) -> ours.Volume:
        """The volume gocryptfs made, as ours opens it."""
        if "encrypted" not in self._volumes:
            cipher = self._cipher_of_gocryptfs()
            self._volumes["encrypted"] = ours.on_gocryptfs_format(cipher, peers.PASSWORD)
        return self._volumes["encrypted"]

    def cipher(self, name: str) -> Path:
        """The folder a peer keeps its ciphertext in, filled by itself; both versions of gocryptfs share one."""
        folder = self._folder("gocryptfs" if name in {DEBIAN, NEWEST} else name)
        if folder not in self._filled:
            self.peer(name).fill(self.plain, folder)
            self._filled.add(folder)
        return folder

    def peer(self, name: str) -> peers.Peer:
        if name not in self._peers:
            self._peers[name] = _PEERS[name](self.place)
        return self._peers[name]

    def _mounting(self, name: str, point: Path) -> Mounting:
        if name in {PASSTHROUGH, SPLICE}:
            return self.peer(name).mounted(self.plain, point)
        if name in _PEERS:
            return self.peer(name).mounted(self.cipher(name), point)
        if name == GOCRYPTFS:
            return ours.stream(self.encrypted(), point)
        if name == GOCRYPTFS_LIVE:
            return ours.writable(self.encrypted(), point)
        if name == NULL:
            return ours.without_cipher(self.sealed(), point)
        return ours.resident(self.sealed(), point) if name == WARM else ours.stream(self.sealed(), point)

    def _cipher_of_gocryptfs(self) -> Path:
        """Made by the newest, or by Debian's where that is not to be had."""
        try:
            return self.cipher(NEWEST)
        except StrongroomError:
            return self.cipher(DEBIAN)

    def _folder(self, name: str) -> Path:
        folder = self.place.work / "volumes" / name.replace(" ", "-")
        folder.parent.mkdir(exist_ok=True)
        return folder

    def _point(self, name: str) -> Path:
        return self.place.work / "mounts" / name.replace(" ", "-").replace(",", "")


@contextmanager
def staged(place: Place, plain: Path, wanted: Sequence[str]) -> Iterator[Stage]:
    """Every subject of `wanted` over the files of `plain`, until the end."""
    with ExitStack() as stack:
        stage = Stage(place, plain, stack)
        for name in wanted:
            try:
                stage.subjects.append(stage.subject(name, raised_too=name + RAISED in wanted))
            except (StrongroomError, OSError) as error:
                stage.absent[name] = str(error)
                print(f"bench-fs: {name}: {error}", file=sys.stderr, flush=True)
        yield stage


_PEERS: Final[dict[str, Callable[[Place], peers.Peer]]] = {
    PASSTHROUGH: lambda place: peers.passthrough(place.work, splice=False),
    SPLICE: lambda place: peers.passthrough(place.work, splice=True),
    DEBIAN: lambda place: peers.gocryptfs_packaged(place.work),
    NEWEST: lambda place: peers.gocryptfs_newest(place.work, place.cache),
    SECUREFS: lambda place: peers.securefs(place.work),
    RCLONE: lambda place: peers.rclone(place.work),
}
