"""Plaintext directory in, sealed tree out; and again, for a release in which most files are those of the last one.

Whatever is sealed gets a new object id and a new key, also when a cut seal is resumed: sealing a model twice repeats no
nonce. A file that is already sealed, in the tree that is updated or by the seal that was cut, keeps its object.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, FormatError, MachineError, StrongroomError
from strongroom.host.sealed.blocks import Room
from strongroom.host.sealed.checking import Checking
from strongroom.host.sealed.crew import Crew, Progress, default_workers
from strongroom.host.sealed.destination import Destination, JournalFile, machine_errors
from strongroom.host.sealed.objects import SealingObject
from strongroom.host.sealed.plain import Entropy, scan
from strongroom.host.sealed.settling import Settling
from strongroom.host.sealed.tree import MANIFEST, SealedStore, StoredObject
from strongroom.sealed.changes import SameContent, same_stamp
from strongroom.sealed.header import DEFAULT_CHUNK_LOG2, ManifestHeader
from strongroom.sealed.index import Index
from strongroom.sealed.journal import Finished, JournalWriter
from strongroom.sealed.keys import Octets, VolumeKeys
from strongroom.sealed.manifest import Entry, InlineFile, Manifest, SealedFile
from strongroom.sealed.volume import OpenedObject, seal_manifest

Announce = Callable[[str, int], Progress]  # what is done to how many bytes, from now on

_SPARE: Final = 1 << 20  # bytes kept free for the manifest, and a thousandth for tags and journal


def quiet(_: str, __: int) -> Progress:
    """Announces nothing."""
    return lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be sealed. Making one refuses every tree that could not be served later."""

    source: Path
    entries: tuple[Entry, ...]
    name: str
    kept: Mapping[bytes, bytes] = field(default_factory=dict)  # object id -> tags, of what is sealed already

    @classmethod
    def make(cls, source: Path, *, name: str, dereference: bool, entropy: Entropy) -> "Plan":
        try:
            entries = scan(source, dereference=dereference, entropy=entropy)
            Manifest(name=name, entries=entries, tags_sha256=bytes(32))
        except FormatError as error:
            raise ConfigError(f"{source}: {error}") from error
        return cls(source=source, entries=entries, name=name)

    @property
    def files(self) -> tuple[InlineFile | SealedFile, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, InlineFile | SealedFile))

    @property
    def total(self) -> int:
        """Bytes of plaintext in all files."""
        return sum(file.size for file in self.files)

    @property
    def due(self) -> tuple[SealedFile, ...]:
        """Files that have to be sealed."""
        return tuple(
            entry
            for entry in self.entries
            if isinstance(entry, SealedFile) and entry.object_id not in self.kept
        )

    def keeping(self, found: Iterable[Finished], *, same: SameContent = same_stamp) -> "Plan":
        """The plan in which a file that is the same as a found one of its path keeps that one's object and key."""
        known = {one.file.path: one for one in found}
        kept, entries = dict(self.kept), list[Entry]()
        for entry in self.entries:
            if isinstance(entry, SealedFile) and entry.object_id not in kept and entry.path in known:
                old = known[entry.path].file
                if old.size == entry.size and same(old, entry):
                    kept[old.object_id] = known[entry.path].tags
                    entry = replace(entry, object_id=old.object_id, key=old.key, sha256=old.sha256)  # noqa: PLW2901
            entries.append(entry)
        return replace(self, entries=tuple(entries), kept=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One state of a tree: the key it will open with, and its epoch."""

    model_key: Octets = field(repr=False)
    epoch: int
    chunk_log2: int = DEFAULT_CHUNK_LOG2

    def head(self, entropy: Entropy, *, volume_id: bytes | None = None) -> tuple[ManifestHeader, VolumeKeys]:
        """A header under a fresh salt, and the keys that go with it."""
        keys = VolumeKeys(model_key=self.model_key, salt=(salt := entropy(32)))
        header = ManifestHeader(
            chunk_log2=self.chunk_log2,
            epoch=self.epoch,
            volume_id=volume_id or entropy(16),
            salt=salt,
            commitment=keys.commitment,
        )
        return header, keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a tree is sealed; none of it shows to a reader but `hashed`."""

    workers: int = field(default_factory=default_workers)
    hashed: bool = True  # note each file's SHA-256, which takes longer than to encrypt it
    verify: bool = True  # read everything back from the store before the commit
    resume: bool = False  # go on where the last one was cut
    same: SameContent = same_stamp  # which files an update, or what resumes one, takes for unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What came of it."""

    root: bytes
    sealed: int  # files that were sealed, this time or before the cut
    sealed_bytes: int
    kept: int  # files that kept the object they had


def seal_tree(
    plan: Plan,
    dest: Path,
    release: Release,
    *,
    entropy: Entropy,
    keep: Callable[[bytes], None],
    before: SealedStore | None = None,
    manner: Manner | None = None,
    announce: Announce = quiet,
) -> Sealed:
    """Seal the planned tree into `dest`: a new one, or over the tree `before`, which stays whole until the commit.

    `keep` is called with the root digest right before it: the place to store the key. When it fails before one
    object was finished, what was written is removed again; otherwise it is left for a Manner that resumes.
    Raises ConfigError for a destination we refuse, MachineError when the source changes meanwhile.
    """
    manner = manner or Manner()
    if dest.resolve().is_relative_to(plan.source.resolve()):
        raise ConfigError(f"{dest}: lies inside {plan.source}, want a place outside")
    with machine_errors(dest), Destination.hold(dest) as place:
        _check(place, before, release, resume=manner.resume)
        place.furnish()
        if before is not None:
            plan = plan.keeping(_there(before, place), same=manner.same)
        updated = len(plan.kept)
        cut = place.journal(release.model_key)
        if cut.records and cut.chunk_log2 != release.chunk_log2:
            raise ConfigError(f"{dest}: its chunks are {1 << cut.chunk_log2} bytes, want the same to resume")
        found = (one for one in cut.finished if place.has_object(one.file))
        plan = plan.keeping(found, same=manner.same)
        place.remove_objects(cut.object_ids - plan.kept.keys())
        writer = JournalWriter(model_key=release.model_key, salt=entropy(32), chunk_log2=release.chunk_log2)
        finished = {one.file.object_id: one for one in cut.finished if one.file.object_id in plan.kept}
        told = list[bytes]()

        def keep_and_note(root: bytes) -> None:
            keep(root)
            told.append(root)

        try:
            with closing(JournalFile(place, writer, finished)) as journal:
                work = _Work(plan, place, release, journal, manner, announce)
                work.seal()
                work.verify()
                root = work.commit(before, entropy, keep_and_note)
        except BaseException:
            if (
                not finished and not told
            ):  # from there on the key is for this tree, and resuming goes on with it
                with suppress(OSError, StrongroomError):  # what failed is what is said
                    place.give_up()
            raise
    sealed = [one.file.size for one in finished.values()]
    return Sealed(root=root, sealed=len(sealed), sealed_bytes=sum(sealed), kept=updated)


def commit_tree(
    place: Destination,
    release: Release,
    manifest: Manifest,
    tags: bytes,
    *,
    volume_id: bytes | None,
    entropy: Entropy,
    keep: Callable[[bytes], None] = lambda _: None,
) -> bytes:
    """Make a tree of objects that are on disk already; the result is its root digest, which `keep` gets before that.

    `volume_id` is that of the tree it follows, None for the first one in this place.
    """
    data = seal_manifest(*release.head(entropy, volume_id=volume_id), manifest)
    place.write_tags(manifest.tags_sha256.hex(), tags)
    root = place.commit(data, keep)
    place.settle(index_of(manifest, root=root, manifest_size=len(data), tags_size=len(tags)))
    return root


def index_of(manifest: Manifest, *, root: bytes, manifest_size: int, tags_size: int) -> Index:
    """What tells a carrier without the key which files belong to a tree."""
    tags = (manifest.tags_sha256, tags_size)
    return Index.of(root=root, manifest_size=manifest_size, tags=tags, files=manifest.objects)


def settle_tree(store: SealedStore, dest: Path) -> None:
    """Tidy up behind a seal that was cut between its commit and its end."""
    volume = store.volume
    size = (dest / MANIFEST).stat().st_size
    index = index_of(volume.manifest, root=volume.root, manifest_size=size, tags_size=volume.tags_size)
    with machine_errors(dest), Destination.hold(dest) as place:
        if place.root != volume.root:
            raise MachineError(f"{dest}: changed meanwhile, want one writer")
        place.settle(index)


def _check(place: Destination, before: SealedStore | None, release: Release, *, resume: bool) -> None:
    root, at = place.root, place.path
    if before is None and root is not None:
        raise ConfigError(f"{at}: holds a sealed tree, want --update, or an empty or absent directory")
    if place.cut and not resume:
        way = "removing the directory" if root is None else "`strongroom prune`"
        raise ConfigError(f"{at}: a seal into it was cut: --resume goes on, {way} gives it up")
    if place.foreign() or (before is None and not resume and any(at.iterdir())):
        raise ConfigError(f"{at}: not empty, want an empty or absent directory")
    if before is None:
        return
    if root != before.volume.root:
        raise MachineError(f"{at}: changed while it was updated, want one writer")
    if release.epoch <= (epoch := before.header.epoch):
        raise ConfigError(f"{at}: epoch is {epoch}, want it to grow: got {release.epoch}")
    if release.chunk_log2 != before.header.chunk_log2:
        raise ConfigError(
            f"{at}: its chunks are {before.header.chunk_size} bytes, want the same in an update"
        )


def _there(before: SealedStore, place: Destination) -> Iterator[Finished]:
    return (Finished(one.file, bytes(one.tags)) for one in before.objects if place.has_object(one.file))


@dataclass(frozen=True, slots=True)
class _Work:
    """One seal, once it is settled what has to be done."""

    plan: Plan
    place: Destination
    release: Release
    journal: JournalFile
    manner: Manner
    announce: Announce

    def seal(self) -> None:
        due, chunk_log2 = self.plan.due, self.release.chunk_log2
        total = sum(file.size for file in due)
        self.place.check_space(total + total // 1000 + _SPARE)
        with Settling(self.place.objects, self.journal.record) as settling:
            jobs = [
                SealingObject(
                    self.plan.source / file.path,
                    self.place.objects,
                    file,
                    chunk_log2=chunk_log2,
                    hashed=self.manner.hashed,
                    record=self.journal.record,
                    settling=settling,
                )
                for file in due
            ]
            show = self.announce("sealing", total)
            Crew(lambda: Room(chunk_log2), workers=self.manner.workers).run(jobs, show)

    def verify(self) -> None:
        """What this seal wrote, and the one before the cut; what an update kept is for `strongroom check`."""
        if not self.manner.verify:
            return
        chunk_log2, done = self.release.chunk_log2, [*self.journal.finished.values()]
        opened = [OpenedObject.of(one.file, one.tags, chunk_log2=chunk_log2) for one in done]
        show = self.announce("verifying", sum(one.file.size for one in done))
        jobs = [Checking(one, lambda opened: StoredObject(opened, self.place.objects.fd)) for one in opened]
        Crew(lambda: Room(chunk_log2), workers=self.manner.workers).run(jobs, show)
        if bad := [(one, job.damage[0]) for one, job in zip(done, jobs, strict=True) if job.damage]:
            self.place.remove_objects(
                one.file.object_id for one, _ in bad
            )  # sealed again when this is resumed
            raise MachineError(f"{self.place.path}: {bad[0][1]}: it does not read back as it was written")

    def commit(self, before: SealedStore | None, entropy: Entropy, keep: Callable[[bytes], None]) -> bytes:
        entries, tags = list[Entry](), bytearray()
        for entry in self.plan.entries:
            if isinstance(entry, SealedFile):
                done = self.journal.finished.get(entry.object_id)
                tags += self.plan.kept[entry.object_id] if done is None else done.tags
                entry = entry if done is None else replace(entry, sha256=done.file.sha256)  # noqa: PLW2901
            entries.append(entry)
        return commit_tree(
            self.place,
            self.release,
            Manifest(name=self.plan.name, entries=tuple(entries), tags_sha256=sha256(tags).digest()),
            bytes(tags),
            volume_id=None if before is None else before.header.volume_id,
            entropy=entropy,
            keep=keep,
        )
