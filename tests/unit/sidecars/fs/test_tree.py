"""Mirrors sidecars/fs/tree.py."""

import stat
import struct

from sidecars.fs.tree import Node, Tree
from strongroom.sealed.manifest import Directory, InlineFile, Manifest, Symlink

MANIFEST = Manifest(
    name="m",
    entries=(
        Directory(path="a", mode=0o750, mtime=1),
        InlineFile(path="a-file", mode=0o640, mtime=2, content=b"12345"),
        Directory(path="a/b", mode=0o755, mtime=3),
        InlineFile(path="a/b/deep", mode=0o400, mtime=4, content=b""),
        Symlink(path="link", mtime=5, target="a/b"),
    ),
    tags_sha256=bytes(32),
)
TREE = Tree.build(MANIFEST, chunk_size=65536, uid=1000)


def at(*names: bytes) -> Node:
    node = TREE.node(1)
    for name in names:
        assert node is not None
        node = TREE.node(node.children[name])
    assert node is not None
    return node


def attributes(node: Node) -> dict[str, int]:
    names = "ino size blocks atime mtime ctime _ _ _ mode nlink uid gid rdev blksize flags".split()
    return dict(zip(names, struct.unpack("=6Q10I", node.attributes), strict=True))


def test_every_entry_has_its_place() -> None:
    assert [at().id, at(b"a").id, at(b"a-file").id, at(b"a", b"b", b"deep").id] == [1, 2, 3, 5]
    assert TREE.node(0) is None
    assert TREE.node(7) is None


def test_attributes() -> None:
    deep = attributes(at(b"a", b"b", b"deep"))
    assert (deep["ino"], deep["mode"], deep["uid"], deep["gid"]) == (5, stat.S_IFREG | 0o400, 1000, 0)
    assert attributes(at(b"a"))["mode"] == stat.S_IFDIR | 0o750
    link = attributes(at(b"link"))
    assert (link["mode"], link["size"]) == (stat.S_IFLNK | 0o777, 3)
    assert [attributes(at(*path))["nlink"] for path in ([], [b"a"], [b"a", b"b"], [b"a-file"])] == [
        3,
        3,
        2,
        1,
    ]


def names(listing: tuple[bytes, ...]) -> list[tuple[int, int, bytes]]:
    found = []
    for record in listing:
        ino, offset, length, _ = struct.unpack("=QQII", record[:24])
        found.append((ino, offset, record[24 : 24 + length]))
    return found


def test_listings() -> None:
    assert names(at().listing) == [
        (1, 1, b"."),
        (1, 2, b".."),
        (2, 3, b"a"),
        (3, 4, b"a-file"),
        (6, 5, b"link"),
    ]
    assert names(at(b"a", b"b").listing) == [(4, 1, b"."), (2, 2, b".."), (5, 3, b"deep")]


def test_listings_with_attributes_count_no_reference_for_dots() -> None:
    nodes = [struct.unpack("=Q", record[:8])[0] for record in at().listing_plus]
    assert nodes == [0, 0, 2, 3, 6]
    assert names(tuple(record[128:] for record in at().listing_plus)) == names(at().listing)
