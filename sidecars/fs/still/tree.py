"""The inode table: built once from a volume's items, never changed, shared by all processes without a lock.

A node's id is its place in the table, so nothing has to be remembered about what the kernel holds, and FORGET means
nothing. What the kernel asks for in bulk is packed ahead: one record for each name, as READDIRPLUS wants it, and the
answers to LOOKUP and READDIR are parts of it. One more file costs some hundred bytes, and no process a copy of them.
"""

import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from sidecars.fs.protocol.frames import (
    ATTR_SIZE,
    ENTRY_SIZE,
    ROOT_ID,
    Attributes,
    pack_attr,
    pack_dirent,
    pack_direntplus,
    pack_entry,
    pack_statfs,
    pack_statx,
)
from strongroom.errors import FormatError
from strongroom.host.stored import Item

_TOP: Final = Item(path=b"", mode=stat.S_IFDIR | 0o755)
_KINDS: Final = {stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK}


@dataclass(slots=True)
class Directory:
    """The names of one directory, and their records one after the other; `ends` is where each of them ends."""

    above: int
    children: dict[bytes, int] = field(default_factory=dict)
    records: memoryview = field(default_factory=lambda: memoryview(b""), repr=False)
    ends: list[int] = field(default_factory=list, repr=False)

    def listing_plus(self, position: int, room: int) -> memoryview:
        """As many whole records from `position` on as fit into `room` bytes."""
        start = self._start(position)
        until = self._start(max(position, bisect_right(self.ends, start + room)))
        return self.records[start:until]

    def listing(self, position: int, room: int) -> bytes:
        """The same without what they say about the node."""
        taken: list[memoryview] = []
        for index in range(position, len(self.ends)):
            record = self.records[self._start(index) + ENTRY_SIZE : self.ends[index]]
            room -= len(record)
            if room < 0:
                break
            taken.append(record)
        return b"".join(taken)

    def _start(self, position: int) -> int:
        return self.ends[min(position, len(self.ends)) - 1] if position > 0 else 0


class Tree:
    def __init__(self, items: Sequence[Item], attributes: bytes, directories: dict[int, Directory]) -> None:
        self._items: Final = items
        self._attributes: Final = attributes
        self._directories: Final = directories
        total = sum(item.size for item in items if stat.S_ISREG(item.mode))
        self.statfs: Final = pack_statfs(total=total, nodes=len(items))
        self.count: Final = len(items)

    @classmethod
    def build(cls, items: Sequence[Item], *, unit: int, uid: int) -> Self:
        """The table of a volume, parents before what they hold. Everything belongs to `uid` and root's group.

        Raises FormatError for an item in no directory, a name that is there twice or a kind we do not serve.
        """
        items = tuple(items) if items and items[0].path == b"" else (_TOP, *items)
        directories = _directories(items)
        attributes = bytearray()
        for node, item in enumerate(items, ROOT_ID):
            attributes += _attributes(node, item, directories, unit, uid)
        tree = cls(items, bytes(attributes), directories)
        for node, directory in directories.items():
            tree._list(node, directory)
        return tree

    @property
    def digest(self) -> str:
        """The same for the same names, kinds, sizes and times in the same order: whose nodes have the same ids."""
        digest = sha256(self._attributes)
        for directory in self._directories.values():
            digest.update(directory.records)
        return digest.hexdigest()

    def item(self, node: int) -> Item | None:
        return self._items[node - ROOT_ID] if ROOT_ID <= node < ROOT_ID + self.count else None

    def directory(self, node: int) -> Directory | None:
        return self._directories.get(node)

    def files(self) -> list[tuple[int, Item]]:
        """Every file that is read through a Reader, by node."""
        return [
            (node, item)
            for node, item in enumerate(self._items, ROOT_ID)
            if item.key is not None and stat.S_ISREG(item.mode)
        ]

    def attr(self, node: int) -> bytes:
        """The reply to GETATTR."""
        return pack_attr(self._attr(node))

    def statx(self, node: int) -> bytes:
        return pack_statx(self._attr(node))

    def found(self, node: int) -> bytes:
        """The reply to LOOKUP."""
        return pack_entry(node, self._attr(node))

    def _attr(self, node: int) -> bytes:
        return self._attributes[(node - ROOT_ID) * ATTR_SIZE : (node - ROOT_ID + 1) * ATTR_SIZE]

    def _list(self, node: int, directory: Directory) -> None:
        records = bytearray()
        names = [(b".", node), (b"..", directory.above), *directory.children.items()]
        for position, (name, child) in enumerate(names, 1):
            attributes = self._attr(child)
            dirent = pack_dirent(child, position, self._items[child - ROOT_ID].mode >> 12, name)
            # Node 0: the kernel must not count a reference for the two names that lead back.
            records += pack_direntplus(pack_entry(child if position > 2 else 0, attributes), dirent)
            directory.ends.append(len(records))
        directory.records = memoryview(bytes(records))


def _directories(items: Sequence[Item]) -> dict[int, Directory]:
    """Every directory by its node, with its names."""
    nodes: dict[bytes, int] = {}
    directories: dict[int, Directory] = {}
    for node, item in enumerate(items, ROOT_ID):
        if stat.S_IFMT(item.mode) not in _KINDS:
            raise FormatError(f"volume: {item.path!r} has mode {item.mode:o}, want a file, directory or link")
        above, _, name = item.path.rpartition(b"/")
        parent = nodes.get(above) if node != ROOT_ID else ROOT_ID
        if parent is None:
            raise FormatError(f"volume: {item.path!r} lies in no directory of the volume")
        if node != ROOT_ID and (not name or directories[parent].children.setdefault(name, node) != node):
            raise FormatError(f"volume: {item.path!r} is there twice or has no name")
        if stat.S_ISDIR(item.mode):
            nodes[item.path] = node
            directories[node] = Directory(parent)
    return directories


def _attributes(node: int, item: Item, directories: dict[int, Directory], unit: int, uid: int) -> bytes:
    links = item.nlink
    if (
        directory := directories.get(node)
    ) is not None:  # itself, its name above, and ".." of each one inside
        links = 2 + sum(child in directories for child in directory.children.values())
    return Attributes(
        ino=node,
        size=item.size if directory is None else 0,
        mode=item.mode | 0o777 if stat.S_ISLNK(item.mode) else item.mode,
        nlink=links,
        mtime_ns=item.mtime_ns,
        uid=uid,
        blksize=unit,
    ).pack()
