"""A sealed tree from a store to a directory: MANIFEST first, everything that it takes, and then its name.

What comes is ciphertext, and the store is believed in nothing. The root digest decides about MANIFEST; MANIFEST, or
INDEX where the key is not at hand, names the rest; whether objects are what was sealed, is found out by who has the
key, at every read. Without the key a store can waste our time and disk, within what is free, and no more.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.broker.resource import VolumeKey
from strongroom.errors import FormatError, MachineError, ProtocolError, VerifyError
from strongroom.host.fetch import Pin
from strongroom.host.pull.attempts import FIRST_PAUSE, TRIES
from strongroom.host.pull.client import IDLE, Client
from strongroom.host.pull.download import Download, Wanted
from strongroom.host.pull.landing import Landing
from strongroom.host.pull.rechecking import damaged
from strongroom.host.pull.source import Known, Source
from strongroom.host.sealed.tree import MANIFEST
from strongroom.sealed.index import INDEX, MAX_INDEX, Index
from strongroom.sealed.volume import MAX_MANIFEST, Volume, open_volume

PARALLEL: Final = 4  # files at a time

Begin = Callable[
    [str, int], Callable[[int], None]
]  # what is done to how many bytes, from now on: who hears how far


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How patient a pull is, and how greedy."""

    parallel: int = PARALLEL
    idle_s: float = IDLE  # seconds of silence before a connection is given up
    tries: int = TRIES  # in a row without a new byte
    first_pause_s: float = FIRST_PAUSE
    recheck: bool = False  # with the key: read every object that is here, and bring again what is damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    index: Index
    fetched: int  # files that were not there before
    carried: int  # bytes that came over the wire, MANIFEST and INDEX aside


async def pull(
    source: Source,
    dest: Path,
    *,
    pin: Pin,
    root: bytes,
    key: VolumeKey | None = None,
    rules: Rules | None = None,
    begin: Begin | None = None,
) -> Pulled:
    """Bring the tree with digest `root` to `dest`; what is there of it already is not asked for again.

    What is there has the right size and, as far as it is known, the right digest. Whether an object is damaged that has
    no known digest, only a recheck finds out, and only with the key.

    With `key` the names come from MANIFEST, without from INDEX. VerifyError for another MANIFEST or other tags;
    ProtocolError when the store says no or has files of other sizes; TransportError when it stayed away, and then the
    same call continues. MachineError when the disk has no room for it, before anything is written.

    `begin` hears of "pulling" and of each "checking", and what it gives back of their bytes, those that were done
    before counted in.
    """
    work = _Pull(source, pin, rules or Rules(), begin or _silent)
    with Landing.open(dest) as landing:
        async with Client(pin, idle_s=work.rules.idle_s) as client:
            known = await source.open(client)
            manifest, index = await work.plan(work.download(client, landing), known, root, key)
        fetched = await work.files(landing, index, known or {})
        if key is not None and work.rules.recheck:
            fetched += await work.repair(landing, manifest, key, index, known or {})
        landing.put(INDEX, index.pack())
        landing.sync()  # everything it names is on disk before it is
        landing.put(MANIFEST, manifest)
        landing.sweep()
        landing.sync()
    return Pulled(index=index, fetched=fetched, carried=work.carried)


class _Pull:
    def __init__(self, source: Source, pin: Pin, rules: Rules, begin: Begin) -> None:
        self.rules = rules
        self.carried = 0
        self._source = source
        self._pin = pin
        self._begin = begin
        self._show: Callable[[int], None] = lambda _: None
        self._done = 0

    def download(self, client: Client, landing: Landing) -> Download:
        return Download(
            client,
            self._source,
            landing,
            self._count,
            tries=self.rules.tries,
            first_pause_s=self.rules.first_pause_s,
        )

    async def plan(
        self, download: Download, known: Mapping[str, Known] | None, root: bytes, key: VolumeKey | None
    ) -> tuple[bytes, Index]:
        manifest = await download.whole(MANIFEST, max_bytes=MAX_MANIFEST)
        if (found := sha256(manifest).digest()) != root:
            raise VerifyError(f"{self._source.title}: root is {found.hex()}, want {root.hex()}")
        if key is not None:
            return manifest, await asyncio.to_thread(index_of, manifest, key)
        listed = await download.whole(INDEX, max_bytes=MAX_INDEX)
        try:
            index = await asyncio.to_thread(Index.parse, listed)
        except FormatError as error:
            raise FormatError(f"{self._source.title}: {error}") from None
        if (index.root, index.manifest_size) != (root, len(manifest)):
            raise ProtocolError(
                f"{self._source.title}: index is of root {index.root.hex()}, want {root.hex()}"
            )
        _compare(index, known, self._source.title)
        return manifest, index

    async def files(self, landing: Landing, index: Index, known: Mapping[str, Known]) -> int:
        """Bring every file that is not there, several at a time; the result is how many."""
        missing = await _missing(landing, _wanted(index, known))
        total = index.total - index.manifest_size
        self._done = total - sum(one.size for one in missing)
        if missing:
            self._show = self._begin("pulling", total)
        need = sum(one.size for one in missing) - sum(
            min(landing.begun(one.name), one.size) for one in missing
        )
        if need > (free := landing.free()):
            raise MachineError(f"{landing.path}: {need} bytes are to come, and there is room for {free}")
        rest = iter(missing)

        async def work() -> None:
            async with Client(self._pin, idle_s=self.rules.idle_s) as client:
                download = self.download(client, landing)
                for one in rest:  # shared by all workers: each takes the next
                    await download.keep(one)
                self.carried += download.carried

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.rules.parallel, len(missing))):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return len(missing)

    async def repair(
        self, landing: Landing, manifest: bytes, key: VolumeKey, index: Index, known: Mapping[str, Known]
    ) -> int:
        """Bring objects again whose bytes are not the sealed ones; the result is how many there were.

        VerifyError when the store has nothing better.
        """
        volume = await asyncio.to_thread(_volume, manifest, key)
        found = await self._damaged(landing, volume)
        for name in found:
            landing.remove(name)
        if found:
            await self.files(landing, index, known)
            if still := await self._damaged(landing, volume):
                raise VerifyError(f"{self._source.title}: {still[0]} is not what was sealed")
        return len(found)

    async def _damaged(self, landing: Landing, volume: Volume) -> list[str]:
        show = self._begin("checking", sum(file.size for file in volume.manifest.objects))
        return await asyncio.to_thread(damaged, landing, volume, show)

    def _count(self, more: int) -> None:
        self._done += more
        self._show(self._done)


def _silent(_what: str, _total: int) -> Callable[[int], None]:
    return lambda _: None


def index_of(manifest: bytes, key: VolumeKey) -> Index:
    """The names and sizes that MANIFEST holds. Raises what open_volume() raises."""
    volume = _volume(manifest, key)
    return Index.of(
        root=key.root,
        manifest_size=len(manifest),
        tags=(volume.manifest.tags_sha256, volume.tags_size),
        files=volume.manifest.objects,
    )


def _volume(manifest: bytes, key: VolumeKey) -> Volume:
    return open_volume(manifest, model_key=key.key, epoch=key.epoch, root=key.root)


async def _missing(landing: Landing, wanted: list[Wanted]) -> list[Wanted]:
    """Those that are not there, or have another size or digest than is known of them."""
    missing = {one.name for one in wanted if landing.size(one.name) != one.size}
    there = [one for one in wanted if one.sha256 is not None and one.name not in missing]
    found = await asyncio.gather(*(asyncio.to_thread(landing.digest, one.name) for one in there))
    missing.update(one.name for one, digest in zip(there, found, strict=True) if digest != one.sha256)
    return [one for one in wanted if one.name in missing]


def _wanted(index: Index, known: Mapping[str, Known]) -> list[Wanted]:
    """Every file but MANIFEST: tags, then objects, the largest first so that none is left over at the end."""
    tags = Wanted(name=index.tags_name, size=index.tags_size, sha256=index.tags_sha256)
    largest = sorted(index.objects.items(), key=lambda item: (-item[1], item[0]))
    objects = [(f"objects/{name}", size) for name, size in largest]
    return [
        tags,
        *(
            Wanted(name=name, size=size, sha256=known[name].sha256 if name in known else None)
            for name, size in objects
        ),
    ]


def _compare(index: Index, known: Mapping[str, Known] | None, title: str) -> None:
    """Where the store told its files itself, what INDEX says must agree."""
    if known is None:
        return
    for one in _wanted(index, known):
        if one.name not in known:
            raise ProtocolError(f"{title}: has no {one.name}, which its index names")
        if known[one.name].size != one.size:
            raise ProtocolError(f"{title}: {one.name} is {known[one.name].size} bytes, want {one.size}")
