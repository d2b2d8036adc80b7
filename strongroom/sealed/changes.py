"""What is different between two trees, entry by entry."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from strongroom.sealed.manifest import Directory, Entry, InlineFile, SealedFile, Symlink

SameContent = Callable[[SealedFile, SealedFile], bool]


class What(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One path, what became of it, and for a change which of its sides: type, content, target, mode, mtime."""

    path: str
    what: What
    sides: tuple[str, ...] = ()


def changes(before: Sequence[Entry], after: Sequence[Entry], *, same: SameContent) -> Iterator[Change]:
    """Every difference, sorted by path. `same` judges two files of one size that are kept as objects."""
    old, new = {entry.path: entry for entry in before}, {entry.path: entry for entry in after}
    for path in sorted(old.keys() | new.keys(), key=str.encode):
        if path not in new:
            yield Change(path, What.REMOVED)
        elif path not in old:
            yield Change(path, What.ADDED)
        elif sides := tuple(_sides(old[path], new[path], same)):
            yield Change(path, What.CHANGED, sides)


def same_object(one: SealedFile, other: SealedFile) -> bool:
    """Whether two sealed files are one object, or have one digest; nothing is known without digests."""
    if one.object_id == other.object_id:
        return one.key == other.key
    return one.sha256 is not None and one.sha256 == other.sha256


def same_stamp(one: SealedFile, other: SealedFile) -> bool:
    """Whether two files have one size and one time of change, to the nanosecond."""
    return (one.size, one.mtime_ns) == (other.size, other.mtime_ns)


def _sides(old: Entry, new: Entry, same: SameContent) -> Iterator[str]:
    match old, new:
        case (SealedFile(), SealedFile()):
            if old.size != new.size or not same(old, new):
                yield "content"
        case (InlineFile(), InlineFile()):
            if old.content != new.content:
                yield "content"
        case (InlineFile() | SealedFile(), InlineFile() | SealedFile()):
            yield "content"  # one is shorter than the other
        case (Symlink(), Symlink()):
            if old.target != new.target:
                yield "target"
        case (Directory(), Directory()):
            pass
        case _:
            yield "type"
            return
    if not isinstance(old, Symlink) and not isinstance(new, Symlink) and old.mode != new.mode:
        yield "mode"
    if not isinstance(old, Directory) and old.mtime_ns != new.mtime_ns:
        yield "mtime"
