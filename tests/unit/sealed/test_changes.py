"""Mirrors strongroom/sealed/changes.py."""

from dataclasses import replace
from typing import Any

import pytest

from strongroom.sealed.changes import Change, What, changes, same_object, same_stamp
from strongroom.sealed.manifest import INLINE_BELOW, Directory, Entry, InlineFile, SealedFile, Symlink

FOLDER = Directory(path="d", mode=0o755, mtime=5)
SMALL = InlineFile(path="d/small", mode=0o644, mtime=5, content=b"hello")
LINK = Symlink(path="link", mtime=5, target="d/small")
LARGE = SealedFile(
    path="m", mode=0o644, mtime=5, size=INLINE_BELOW, object_id=b"o" * 16, key=b"k" * 32, sha256=b"s" * 32
)
TREE: tuple[Entry, ...] = (FOLDER, SMALL, LINK, LARGE)


def found(*after: Entry, same: Any = same_object) -> list[Change]:
    return [*changes(TREE, after, same=same)]


def test_a_tree_is_what_it_is() -> None:
    assert found(*TREE) == []
    assert found(*reversed(TREE)) == []


def test_added_and_removed() -> None:
    new = replace(SMALL, path="a")
    assert found(new, FOLDER, LINK, LARGE) == [Change("a", What.ADDED), Change("d/small", What.REMOVED)]


@pytest.mark.parametrize(
    ("entry", "sides"),
    [
        (replace(FOLDER, mode=0o700), ("mode",)),
        (replace(FOLDER, mtime=6), ()),  # of no consequence: any file written into it does that
        (replace(SMALL, content=b"world"), ("content",)),
        (replace(SMALL, nanos=1), ("mtime",)),
        (replace(LINK, target="d"), ("target",)),
        (replace(LINK, mtime=9), ("mtime",)),
        (Directory(path="link", mode=0o755, mtime=5), ("type",)),
        (replace(LARGE, size=INLINE_BELOW + 1), ("content",)),
        (replace(LARGE, object_id=b"x" * 16, key=b"y" * 32), ()),  # sealed again, the same digest
        (replace(LARGE, object_id=b"x" * 16, sha256=b"t" * 32, mode=0o600), ("content", "mode")),
        (replace(LARGE, object_id=b"x" * 16, sha256=None), ("content",)),  # nothing shows that it is the same
        (replace(LARGE, key=b"x" * 32), ("content",)),
        (InlineFile(path="m", mode=0o644, mtime=5, content=b""), ("content",)),
    ],
)
def test_each_side_is_told(entry: Entry, sides: tuple[str, ...]) -> None:
    after = [entry if entry.path == old.path else old for old in TREE]
    assert found(*after) == ([Change(entry.path, What.CHANGED, sides)] if sides else [])


def test_the_stamp_is_size_and_time() -> None:
    assert same_stamp(LARGE, replace(LARGE, path="n", sha256=None, object_id=b"x" * 16))
    assert not same_stamp(LARGE, replace(LARGE, nanos=1))
    assert not same_stamp(LARGE, replace(LARGE, size=INLINE_BELOW + 1))
