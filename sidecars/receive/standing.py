"""What a push finds in the place it goes to: a tree under our key, the work of a cut push, and what is neither."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

from strongroom.errors import FormatError, PolicyError, VerifyError
from strongroom.host.sealed.destination import Destination
from strongroom.host.sealed.sealing import index_of
from strongroom.host.sealed.tree import MANIFEST, SealedStore, open_directory, read_small
from strongroom.push.manifest import PlainFile, PushManifest
from strongroom.sealed.header import SIZE, ManifestHeader
from strongroom.sealed.index import Index
from strongroom.sealed.journal import Finished, Journal
from strongroom.sealed.keys import Octets
from strongroom.sealed.manifest import Entry, InlineFile, Manifest, SealedFile
from strongroom.sealed.volume import MAX_MANIFEST, root_digest


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree that stands in a place and opens under our key."""

    root: bytes
    header: ManifestHeader
    manifest: Manifest
    finished: tuple[Finished, ...]
    index: Index

    @classmethod
    def find(cls, place: Destination, model_key: Octets) -> Self | None:
        """None where there is none, or one that somebody else sealed: whoever holds the disk can put that there."""
        try:
            if place.root is None:
                return None
            top = open_directory(place.path, None, str(place.path))
            try:
                data = read_small(MANIFEST, top, MAX_MANIFEST, "manifest")
            finally:
                os.close(top)
            header, root = ManifestHeader.parse(data[:SIZE]), root_digest(data)
            with SealedStore.open(place.path, model_key=model_key, epoch=header.epoch, root=root) as store:
                finished = tuple(Finished(one.file, bytes(one.tags)) for one in store.objects)
                index = index_of(
                    store.manifest, root=root, manifest_size=len(data), tags_size=store.volume.tags_size
                )
                return cls(root, header, store.manifest, finished, index)
        except (FormatError, VerifyError, PolicyError):
            return None

    @property
    def object_ids(self) -> frozenset[bytes]:
        return frozenset(one.file.object_id for one in self.finished)

    @property
    def tags_name(self) -> str:
        return self.manifest.tags_sha256.hex()

    def is_of(self, manifest: PushManifest) -> bool:
        """Whether it is this very release, entry by entry."""
        mine = tuple(_plain(entry) for entry in self.manifest.entries)
        named = (self.manifest.name, self.header.epoch) == (manifest.name, manifest.epoch)
        return named and mine == manifest.entries


def cut_journal(place: Destination, model_key: Octets) -> Journal:
    """What a push that was cut has left; nothing when another key wrote it."""
    try:
        return place.journal(model_key)
    except (FormatError, VerifyError):
        return Journal()


def keeping(
    entries: Iterable[Entry], found: Iterable[Finished], place: Destination
) -> tuple[list[Entry], dict[bytes, Finished]]:
    """The entries with the objects of those files that are there already, whatever they were called; and these."""
    there = defaultdict[tuple[int, bytes | None], list[Finished]](list)
    for one in {one.file.object_id: one for one in found}.values():
        if one.file.sha256 is not None and place.has_object(one.file):
            there[one.file.size, one.file.sha256].append(one)
    settled, kept = list[Entry](), dict[bytes, Finished]()
    for entry in entries:
        if isinstance(entry, SealedFile) and (matching := there[entry.size, entry.sha256]):
            one = matching.pop()
            entry = replace(entry, object_id=one.file.object_id, key=one.file.key)  # noqa: PLW2901
            kept[entry.object_id] = Finished(entry, one.tags)
        settled.append(entry)
    return settled, kept


def sweep(place: Destination, object_ids: Collection[bytes], tags_name: str) -> None:
    """Remove every object and all tags but these."""
    names = {one.hex() for one in object_ids}
    for folder in (place.objects, place.tags):
        for name in folder.names():
            if name not in names and name != tags_name:
                folder.remove(name)


def _plain(entry: Entry) -> Entry | PlainFile | None:
    """An entry of a sealed tree as a manifest in the clear has it."""
    match entry:
        case InlineFile():
            size, digest = entry.size, sha256(entry.content).digest()
        case SealedFile(sha256=bytes(digest)):
            size = entry.size
        case SealedFile():
            return None
        case _:
            return entry
    return PlainFile(
        path=entry.path, mode=entry.mode, mtime=entry.mtime, nanos=entry.nanos, size=size, sha256=digest
    )
