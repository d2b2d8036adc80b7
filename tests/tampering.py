"""Every way a store can change a sealed tree, one at a time, and what a reader gets to see then.

Each change is made on a copy and taken back. A reader either refuses the tree, or gives every chunk that was not
touched as it was sealed and refuses every one that was. One byte that is neither is a defect of ours.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from strongroom.errors import StrongroomError, VerifyError
from strongroom.host.sealed.sealing import Manner, Plan, Release, seal_tree
from strongroom.host.sealed.tree import SealedStore, SealedTree
from strongroom.sealed.chunks import TAG_SIZE
from tests.fakes.sealed import CHUNK, MODEL_KEY, counter, make_sealed, pattern

EPOCH: Final = 2
MOST_IN_PAIRS: Final = 32  # chunks: there are as many pairs as half the square
NEXT_KEY: Final = bytes(range(1, 33))

Place: TypeAlias = tuple[str, int]  # a file's path and the number of a chunk of it
Seen: TypeAlias = dict[Place, bytes | None]  # None: refused
View: TypeAlias = Callable[[], Seen | None]  # None: the tree was refused


@dataclass(frozen=True)
class Target:
    """The tree that is changed: what it holds, and the release before it."""

    path: Path
    old: Path  # a copy of the older release
    root: bytes
    contents: dict[str, bytes]
    objects: dict[str, Path]
    tags: Path

    def chunks(self) -> list[Place]:
        return [
            (path, n) for path, content in self.contents.items() for n in range(-(-len(content) // CHUNK))
        ]

    def truth(self, place: Place) -> bytes:
        path, number = place
        return self.contents[path][number * CHUNK : (number + 1) * CHUNK]


@dataclass(frozen=True)
class Change:
    """One change. `opens` is whether a tree that was changed before it was opened still opens."""

    kind: str
    what: str
    edits: dict[Path, Callable[[bytearray], object] | None]  # None: the file is removed
    touched: frozenset[Place] = frozenset()
    opens: bool = True

    @property
    def in_place(self) -> bool:
        """Whether a reader that has the tree open meets it."""
        return bool(self.touched)

    def make(self) -> Callable[[], None]:
        """Make the change; the result takes it back. Files keep their inodes unless they are removed."""
        before = {path: path.read_bytes() for path in self.edits}
        for path, edit in self.edits.items():
            if edit is None:
                path.unlink()
            else:
                data = bytearray(before[path])
                edit(data)
                _overwrite(path, bytes(data))

        def undo() -> None:
            for path, content in before.items():
                _overwrite(path, content)

        return undo


@dataclass
class Tally:
    """What came of all changes of one kind."""

    kind: str
    tried: int = 0
    refused_trees: int = 0
    refused_chunks: int = 0
    wrong: list[str] = field(default_factory=list)

    def judge(self, change: Change, seen: Seen | None, target: Target, *, opens: bool) -> None:
        self.tried += 1
        if seen is None:
            self.refused_trees += 1
            if opens:
                self.wrong.append(f"{change.what}: the whole tree was refused")
            return
        if not opens:
            self.wrong.append(f"{change.what}: the tree was opened")
        for place, content in seen.items():
            if content is None:
                self.refused_chunks += 1
                if place not in change.touched:
                    self.wrong.append(f"{change.what}: chunk {place} was refused, it was not touched")
            elif content != target.truth(place):
                self.wrong.append(f"{change.what}: WRONG BYTES in chunk {place}")
            elif place in change.touched:
                self.wrong.append(f"{change.what}: chunk {place} was read in spite of it")


def make_target(work: Path, *, scale: int = 1) -> Target:
    """A tree in its second release, of which one file is that of the first. `scale` makes files larger."""
    fixture = make_sealed(work, epoch=1)
    source, path, old = work / "source-1", fixture.path, work / "old"
    contents = {name: fixture.contents[name] for name in fixture.objects}
    shutil.copytree(path, old)
    contents["exact.bin"] = pattern(4 * CHUNK, 30)  # as long as the one before
    contents["model-2.safetensors"] = pattern((5 + 16 * (scale - 1)) * CHUNK + 100, 20)
    for name in ("exact.bin", "model-2.safetensors"):
        (source / name).write_bytes(contents[name])
    with SealedStore.open(path, model_key=MODEL_KEY, epoch=1, root=fixture.root) as before:
        entropy = counter(b"second")
        sealed = seal_tree(
            Plan.make(source, name="tiny", dereference=False, entropy=entropy),
            path,
            Release(model_key=NEXT_KEY, epoch=EPOCH, chunk_log2=16),
            entropy=entropy,
            keep=lambda _: None,
            before=before,
            manner=Manner(workers=2),
        )
    with SealedStore.open(path, model_key=NEXT_KEY, epoch=EPOCH, root=sealed.root) as store:
        objects = {one.file.path: path / "objects" / one.file.object_name for one in store.objects}
        tags = path / "tags" / store.volume.tags_name
    return Target(path, old, sealed.root, contents, objects, tags)


def through_the_tree(target: Target) -> View:
    """What SealedTree gives."""

    def view() -> Seen | None:
        seen: Seen = {}
        try:
            with SealedTree.open(target.path, model_key=NEXT_KEY, epoch=EPOCH, root=target.root) as tree:
                for stored in map(tree.stored, tree.objects):
                    for number in range(stored.chunking.count):
                        slot = memoryview(bytearray((length := stored.chunking.length(number)) + TAG_SIZE))
                        out = memoryview(bytearray(length))
                        try:
                            stored.load(number, [slot[:-TAG_SIZE]])
                            stored.open(number, slot, out)
                        except VerifyError:
                            seen[stored.file.path, number] = None
                        else:
                            seen[stored.file.path, number] = bytes(out)
        except StrongroomError:
            return None
        return seen

    return view


def sweep(target: Target, changes: Iterable[Change], view: View, *, opened: bool) -> list[Tally]:
    """Make every change in turn and look. `opened` says that the view has the tree open all the time."""
    tallies: dict[str, Tally] = {}
    sound = view()
    assert sound is not None and all(sound[place] == target.truth(place) for place in target.chunks())
    for change in changes:
        tally = tallies.setdefault(change.kind, Tally(change.kind))
        undo = change.make()
        try:
            tally.judge(change, view(), target, opens=opened or change.opens)
        finally:
            undo()
    return [*tallies.values()]


# The changes


def changes(target: Target) -> Iterator[Change]:
    """Every change there is a name for."""
    yield from _flipped_chunks(target)
    yield from _zeroed_chunks(target)
    if len(target.chunks()) <= MOST_IN_PAIRS:
        yield from _swapped_chunks(target)
    yield from _swapped_objects(target)
    yield from _cut_objects(target)
    yield from _flipped_bytes(target, "byte of TAGS flipped", target.tags)
    yield from _swapped_tags(target)
    yield from _resized(target, "TAGS cut or longer", target.tags, range(0, target.tags.stat().st_size, 16))
    manifest = target.path / "MANIFEST"
    yield from _flipped_bytes(target, "byte of MANIFEST flipped", manifest)
    yield from _resized(target, "MANIFEST cut or longer", manifest, range(0, manifest.stat().st_size, 7))
    yield from _older(target)
    yield from _removed(target)


def _flipped_chunks(target: Target) -> Iterator[Change]:
    """The first, the last and a middle byte of every chunk, each time another bit."""
    for number, (path, chunk) in enumerate(target.chunks()):
        length = len(target.truth((path, chunk)))
        for at in sorted({0, length // 2, length - 1}):
            edit = _flip(chunk * CHUNK + at, (number + at) % 8)
            touched = frozenset({(path, chunk)})
            yield Change(
                "byte of a chunk flipped", f"{path}: {chunk}+{at}", {target.objects[path]: edit}, touched
            )


def _zeroed_chunks(target: Target) -> Iterator[Change]:
    for path, chunk in target.chunks():
        length = len(target.truth((path, chunk)))
        edit = _put(chunk * CHUNK, bytes(length))
        touched = frozenset({(path, chunk)})
        yield Change("chunk zeroed", f"{path}: {chunk}", {target.objects[path]: edit}, touched)


def _swapped_chunks(target: Target) -> Iterator[Change]:
    """Every pair, of one file or of two; of chunks of unequal length, what both have."""
    for one, two in itertools.combinations(target.chunks(), 2):
        length = min(len(target.truth(one)), len(target.truth(two)))
        first, second = target.objects[one[0]], target.objects[two[0]]
        data = [path.read_bytes()[n * CHUNK :][:length] for path, n in ((first, one[1]), (second, two[1]))]
        edits: dict[Path, Callable[[bytearray], object] | None]
        if first == second:
            edits = {first: _both(_put(one[1] * CHUNK, data[1]), _put(two[1] * CHUNK, data[0]))}
        else:
            edits = {first: _put(one[1] * CHUNK, data[1]), second: _put(two[1] * CHUNK, data[0])}
        yield Change("pair of chunks swapped", f"{one} and {two}", edits, frozenset({one, two}))


def _swapped_objects(target: Target) -> Iterator[Change]:
    for one, two in itertools.combinations(target.objects, 2):
        first, second = target.objects[one], target.objects[two]
        same = len(target.contents[one]) == len(target.contents[two])
        touched = (
            frozenset(place for place in target.chunks() if place[0] in (one, two)) if same else frozenset()
        )
        edits: dict[Path, Callable[[bytearray], object] | None] = {
            first: _become(second.read_bytes()),
            second: _become(first.read_bytes()),
        }
        yield Change("pair of objects swapped", f"{one} and {two}", edits, touched, opens=same)


def _cut_objects(target: Target) -> Iterator[Change]:
    """At every boundary between chunks, right before, right behind and in the middle; and longer than it was."""
    for path, content in target.contents.items():
        sizes = {n * CHUNK + d for n in range(len(content) // CHUNK + 1) for d in (-1, 0, 1, CHUNK // 2)}
        for size in sorted(one for one in sizes if 0 <= one < len(content)):
            gone = range(size // CHUNK, -(-len(content) // CHUNK))
            touched = frozenset((path, chunk) for chunk in gone)
            edits: dict[Path, Callable[[bytearray], object] | None] = {target.objects[path]: _resize(size)}
            yield Change("object cut", f"{path}: {size} bytes", edits, touched, opens=False)
        for more in (1, TAG_SIZE, CHUNK):
            edits = {target.objects[path]: _resize(len(content) + more)}
            yield Change("object longer", f"{path}: {more} bytes more", edits, opens=False)


def _flipped_bytes(target: Target, kind: str, path: Path) -> Iterator[Change]:
    for at in range(path.stat().st_size):
        yield Change(kind, f"byte {at}", {path: _flip(at, at % 8)}, opens=False)


def _swapped_tags(target: Target) -> Iterator[Change]:
    data = target.tags.read_bytes()
    for one, two in itertools.combinations(range(0, len(data), TAG_SIZE), 2):
        edit = _both(_put(one, data[two : two + TAG_SIZE]), _put(two, data[one : one + TAG_SIZE]))
        yield Change("pair of tags swapped", f"{one} and {two}", {target.tags: edit}, opens=False)


def _resized(target: Target, kind: str, path: Path, sizes: Iterable[int]) -> Iterator[Change]:
    whole = path.stat().st_size
    for size in (*sizes, whole - 1, whole + 1, whole + TAG_SIZE):
        yield Change(kind, f"{size} bytes", {path: _resize(size)}, opens=False)


def _older(target: Target) -> Iterator[Change]:
    """Parts of the release before, put back in their place, and then all of them."""
    kind, manifest = "older release put back", target.path / "MANIFEST"
    (old_tags,) = (target.old / "tags").iterdir()
    old_manifest = _become((target.old / "MANIFEST").read_bytes())
    yield Change(kind, "MANIFEST", {manifest: old_manifest}, opens=False)
    yield Change(kind, "TAGS", {target.tags: _become(old_tags.read_bytes())}, opens=False)
    both = {manifest: old_manifest, target.tags: _become(old_tags.read_bytes())}
    yield Change(kind, "MANIFEST and TAGS", {**both}, opens=False)
    for path in (target.old / "objects").iterdir():
        content = path.read_bytes()
        for name, at in target.objects.items():
            if at.name == path.name or len(content) != at.stat().st_size:
                continue
            touched = frozenset(place for place in target.chunks() if place[0] == name)
            yield Change(kind, f"{path.name} as {name}", {at: _become(content)}, touched)
            for place in touched:
                piece = content[place[1] * CHUNK : (place[1] + 1) * CHUNK]
                edit = _put(place[1] * CHUNK, piece)
                yield Change(kind, f"chunk {place[1]} of {path.name}", {at: edit}, frozenset({place}))


def _removed(target: Target) -> Iterator[Change]:
    for path in (target.path / "MANIFEST", target.tags, *target.objects.values()):
        yield Change("file removed", path.name, {path: None}, opens=False)


def _flip(at: int, bit: int) -> Callable[[bytearray], object]:
    def edit(data: bytearray) -> None:
        data[at] ^= 1 << bit

    return edit


def _put(at: int, content: bytes) -> Callable[[bytearray], object]:
    def edit(data: bytearray) -> None:
        data[at : at + len(content)] = content

    return edit


def _both(
    one: Callable[[bytearray], object], two: Callable[[bytearray], object]
) -> Callable[[bytearray], object]:
    return lambda data: (one(data), two(data))


def _become(content: bytes) -> Callable[[bytearray], object]:
    def edit(data: bytearray) -> None:
        data[:] = content

    return edit


def _resize(size: int) -> Callable[[bytearray], object]:
    def edit(data: bytearray) -> None:
        data[:] = data[:size] + bytes(max(0, size - len(data)))

    return edit


def _overwrite(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)
