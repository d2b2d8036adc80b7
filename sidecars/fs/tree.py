"""The inode table: built once from the manifest, never changed, shared by all threads without a lock.

A node's id is its place in the table, so nothing has to be remembered about what the kernel holds, and FORGET means
nothing. Every reply about a node is packed in advance.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from sidecars.fs.protocol.frames import (
    ROOT_ID,
    Attributes,
    pack_attr,
    pack_dirent,
    pack_direntplus,
    pack_entry,
    pack_statfs,
)
from strongroom.sealed.manifest import Directory, Entry, InlineFile, Manifest, SealedFile, Symlink
from strongroom.sealed.paths import parent

_ROOT: Final = Directory(path="", mode=0o755, mtime=0)
_TYPES: Final = {
    Directory: stat.S_IFDIR,
    InlineFile: stat.S_IFREG,
    SealedFile: stat.S_IFREG,
    Symlink: stat.S_IFLNK,
}


@dataclass(slots=True)
class Node:
    """One file, directory or link, and the replies that describe it."""

    id: int
    entry: Entry
    attributes: bytes = field(repr=False)  # fuse_attr
    attr: bytes = field(repr=False)  # reply to GETATTR
    found: bytes = field(repr=False)  # reply to LOOKUP
    children: dict[bytes, int] = field(default_factory=dict)
    listing: tuple[bytes, ...] = ()  # READDIR records in order, "." and ".." first
    listing_plus: tuple[bytes, ...] = ()  # READDIRPLUS records in the same order


class Tree:
    def __init__(self, nodes: Sequence[Node], statfs: bytes) -> None:
        self._nodes: Final = tuple(nodes)
        self.statfs: Final = statfs

    @classmethod
    def build(cls, manifest: Manifest, *, chunk_size: int, uid: int) -> Self:
        """The table of a manifest whose paths were checked. Everything belongs to `uid` and root's group."""
        ids: dict[str, int] = {}
        nodes: list[Node] = []
        links = _link_counts(manifest)
        for number, entry in enumerate((_ROOT, *manifest.entries), ROOT_ID):
            ids[entry.path] = number
            nodes.append(_node(number, entry, links.get(entry.path, 1), chunk_size, uid))
            if entry is not _ROOT:
                name = entry.path.rpartition("/")[2].encode()
                nodes[ids[parent(entry.path)] - ROOT_ID].children[name] = number
        for node in nodes:
            if isinstance(node.entry, Directory):
                above = nodes[ids[parent(node.entry.path)] - ROOT_ID]
                children = [(name, nodes[child - ROOT_ID]) for name, child in node.children.items()]
                _list(node, [(b".", node), (b"..", above), *children])
        total = sum(entry.size for entry in manifest.entries if isinstance(entry, InlineFile | SealedFile))
        return cls(nodes, pack_statfs(total=total, nodes=len(nodes)))

    def node(self, number: int) -> Node | None:
        return self._nodes[number - ROOT_ID] if ROOT_ID <= number < ROOT_ID + len(self._nodes) else None


def _node(number: int, entry: Entry, nlink: int, chunk_size: int, uid: int) -> Node:
    mode = 0o777 if isinstance(entry, Symlink) else entry.mode
    attributes = Attributes(
        ino=number,
        size=_size(entry),
        mode=_TYPES[type(entry)] | mode,
        nlink=nlink,
        mtime=entry.mtime,
        uid=uid,
        blksize=chunk_size,
    ).pack()
    return Node(number, entry, attributes, pack_attr(attributes), pack_entry(number, attributes))


def _size(entry: Entry) -> int:
    match entry:
        case Directory():
            return 0
        case Symlink():
            return len(entry.target.encode())
        case InlineFile() | SealedFile():
            return entry.size


def _link_counts(manifest: Manifest) -> dict[str, int]:
    """Of directories: two, and one for each directory inside."""
    counts = {entry.path: 2 for entry in (_ROOT, *manifest.entries) if isinstance(entry, Directory)}
    for entry in manifest.entries:
        if isinstance(entry, Directory):
            counts[parent(entry.path)] += 1
    return counts


def _list(directory: Node, names: list[tuple[bytes, Node]]) -> None:
    records, plus = [], []
    for offset, (name, node) in enumerate(names, 1):
        record = pack_dirent(node.id, offset, _TYPES[type(node.entry)] >> 12, name)
        # Node 0: the kernel must not count a reference for the two names that lead back.
        entry = node.found if offset > 2 else pack_entry(0, node.attributes)
        records.append(record)
        plus.append(pack_direntplus(entry, record))
    directory.listing, directory.listing_plus = tuple(records), tuple(plus)
