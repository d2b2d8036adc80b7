"""Mirrors sidecars/fs/still/tree.py."""

import stat
import struct
from collections.abc import Sequence

import pytest

from sidecars.fs.still.tree import Directory, Tree
from strongroom.errors import FormatError
from strongroom.host.stored import Item

DIRECTORY, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK
SECOND = 10**9
ITEMS = (
    Item(path=b"a", mode=DIRECTORY | 0o750, mtime_ns=SECOND),
    Item(path=b"a-file", mode=FILE | 0o640, mtime_ns=2 * SECOND + 5, size=5, content=b"12345"),
    Item(path=b"a/b", mode=DIRECTORY | 0o755),
    Item(path=b"a/b/deep", mode=FILE | 0o400, content=b"", nlink=3),
    Item(path=b"link", mode=LINK | 0o700, size=3, target=b"a/b"),
    Item(path=b"weights", mode=FILE | 0o644, size=1 << 40, key=7),
)
TREE = Tree.build(ITEMS, unit=65536, uid=1000)


def directory(node: int) -> Directory:
    found = TREE.directory(node)
    assert found is not None
    return found


def attributes(node: int) -> dict[str, int]:
    names = "ino size blocks atime mtime ctime _ mtime_nsec _ mode nlink uid gid rdev blksize flags".split()
    return dict(zip(names, struct.unpack("=6Q10I", TREE.attr(node)[16:]), strict=True))


def names(records: bytes | memoryview, skip: int = 0) -> list[tuple[int, int, bytes]]:
    """Inode, next position and name of each record."""
    found, rest = [], bytes(records)
    while rest:
        ino, position, length, _ = struct.unpack("=QQII", rest[skip : skip + 24])
        found.append((ino, position, rest[skip + 24 : skip + 24 + length]))
        rest = rest[skip + 24 + length + -length % 8 :]
    return found


def test_every_item_has_its_place() -> None:
    assert dict(directory(1).children) == {b"a": 2, b"a-file": 3, b"link": 6, b"weights": 7}
    assert dict(directory(2).children) == {b"b": 4}
    assert [TREE.item(node) for node in range(2, 8)] == list(ITEMS)
    assert TREE.item(0) is TREE.item(8) is None
    assert TREE.files() == [(7, ITEMS[5])]
    assert TREE.directory(3) is None


def test_attributes() -> None:
    deep = attributes(5)
    assert (deep["ino"], deep["mode"], deep["uid"], deep["gid"]) == (5, FILE | 0o400, 1000, 0)
    assert (deep["nlink"], deep["blksize"]) == (3, 65536)
    assert attributes(2)["mode"] == DIRECTORY | 0o750
    assert (attributes(3)["mtime"], attributes(3)["mtime_nsec"]) == (2, 5)
    assert (attributes(6)["mode"], attributes(6)["size"]) == (LINK | 0o777, 3)
    assert (attributes(7)["size"], attributes(7)["blocks"]) == (1 << 40, 1 << 31)
    assert [attributes(node)["nlink"] for node in (1, 2, 4, 3)] == [3, 3, 2, 1]


def test_one_truth_about_a_node() -> None:
    for node in range(1, 8):
        assert TREE.found(node)[40:] == TREE.attr(node)[16:]
        assert struct.unpack("=Q", TREE.found(node)[:8]) == (node,)
        assert struct.unpack("=Q", TREE.statx(node)[64:72]) == (node,)


def test_listings() -> None:
    whole = [
        (1, 1, b"."),
        (1, 2, b".."),
        (2, 3, b"a"),
        (3, 4, b"a-file"),
        (6, 5, b"link"),
        (7, 6, b"weights"),
    ]
    assert names(directory(1).listing(0, 4096)) == whole
    assert names(directory(1).listing_plus(0, 4096), skip=128) == whole
    assert names(directory(4).listing(0, 4096)) == [(4, 1, b"."), (2, 2, b".."), (5, 3, b"deep")]


@pytest.mark.parametrize("room", range(0, 1200, 37))
@pytest.mark.parametrize("position", range(9))
def test_a_piece_of_a_listing_is_whole_records_that_fit(position: int, room: int) -> None:
    top = directory(1)
    for piece, skip in ((top.listing_plus(position, room), 128), (top.listing(position, room), 0)):
        assert len(piece) <= room
        found = names(piece, skip)
        assert [one[1] for one in found] == list(range(position + 1, position + 1 + len(found)))
        if position + len(found) < 6:  # one more would not have fitted
            step = top.ends[position + len(found)] - (
                top.ends[position + len(found) - 1] if position + len(found) else 0
            )
            assert len(piece) + step - (128 - skip) > room


def test_listings_with_attributes_count_no_reference_for_dots() -> None:
    records = bytes(directory(1).listing_plus(0, 4096))
    starts = [0, *directory(1).ends[:-1]]
    assert [struct.unpack("=Q", records[at : at + 8])[0] for at in starts] == [0, 0, 2, 3, 6, 7]


def test_the_top_may_be_given() -> None:
    top = Item(path=b"", mode=DIRECTORY | 0o700, mtime_ns=9 * SECOND)
    tree = Tree.build((top, *ITEMS), unit=1, uid=0)
    assert tree.item(1) is top
    assert tree.count == TREE.count


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([Item(path=b"x/y", mode=FILE)], "lies in no directory"),
        ([Item(path=b"x", mode=FILE), Item(path=b"x/y", mode=FILE)], "lies in no directory"),
        ([Item(path=b"x", mode=FILE), Item(path=b"x", mode=FILE)], "is there twice"),
        ([Item(path=b"x", mode=DIRECTORY), Item(path=b"x/", mode=FILE)], "has no name"),
        ([Item(path=b"x", mode=stat.S_IFIFO)], "want a file, directory or link"),
        ([Item(path=b"x", mode=stat.S_IFBLK)], "want a file, directory or link"),
    ],
)
def test_a_table_that_is_no_tree(items: Sequence[Item], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        Tree.build(items, unit=1, uid=0)


def test_the_digest_tells_tables_apart() -> None:
    assert Tree.build(ITEMS, unit=65536, uid=1000).digest == TREE.digest
    others = [
        Tree.build(ITEMS, unit=65536, uid=0),
        Tree.build(ITEMS[:-1], unit=65536, uid=1000),
        Tree.build(
            (*ITEMS[:-1], Item(path=b"weight5", mode=FILE | 0o644, size=1 << 40)), unit=65536, uid=1000
        ),
    ]
    assert len({TREE.digest, *(tree.digest for tree in others)}) == 4
