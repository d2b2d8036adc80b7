"""The inode table: which files the kernel knows, by what names, and through which handles they are open.

The kernel speaks of nodes, an operations class of paths. One node stands for one file however many names it has, so
that the kernel's page cache is one, and it stays when its last name goes while the file is open.
"""

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Final

ROOT_ID: Final = 1


_NONE: Final[dict[str, "Node"]] = {}  # what a file holds: never written to


class Node:
    """One file, directory or link that the kernel holds `lookups` references to."""

    __slots__ = ("children", "handles", "id", "key", "links", "lookups", "names")

    def __init__(self, number: int, key: tuple[int, int, int]) -> None:
        self.id: Final = number
        self.key: Final = key  # device, inode number and type of what is behind it
        self.lookups = 0
        self.links = 1  # names when it was last looked at, or fewer
        self.names: list[tuple[Node, str]] = []  # where it hangs; empty once it is unlinked
        self.children: dict[str, Node] = {} if key[2] == stat.S_IFDIR else _NONE
        self.handles: tuple[int, ...] = ()  # open files

    @property
    def handle(self) -> int | None:
        """Any handle it is open through: it works when no name does any more."""
        return self.handles[-1] if self.handles else None


class Nodes:
    """Usable from several threads. What comes out of path() holds until a directory is renamed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last = ROOT_ID
        self._root: Final = Node(ROOT_ID, (0, 0, stat.S_IFDIR))
        self._root.lookups = 1
        self._nodes = {ROOT_ID: self._root}
        self._by_key: dict[tuple[int, int, int], Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, number: int) -> Node:
        """OSError ESTALE for one the kernel was never given, or has forgotten."""
        try:
            return self._nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def path(self, node: Node) -> str | None:
        """One of its paths, from "/"; None when no name leads to it any more."""
        parts: list[str] = []
        while node is not self._root:
            try:
                node, name = node.names[0]
            except IndexError:
                return None
            parts.append(name)
        return "/" + "/".join(reversed(parts))

    def below(self, directory: Node, name: str) -> str:
        """The path of a name in a directory; OSError ENOENT when the directory is gone."""
        if (path := self.path(directory)) is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return f"{path}{name}" if directory is self._root else f"{path}/{name}"

    def found(self, directory: Node, name: str, attrs: Mapping[str, int]) -> Node:
        """The node of a name the kernel is about to hear of, counted once more."""
        kind = stat.S_IFMT(attrs["st_mode"])
        key = (attrs.get("st_dev", 0), attrs.get("st_ino", 0), kind)
        with self._lock:
            node = directory.children.get(name)
            if node is None or node.key != key:
                if node is not None:  # somebody exchanged it behind our back
                    self._detach(directory, name)
                node = self._by_key.get(key) if key[1] else None
                if (
                    node is None or kind == stat.S_IFDIR
                ):  # a directory has one name: it was moved behind our back
                    node = self._make(key)
                node.names.append((directory, name))
                directory.children[name] = node
            node.lookups += 1
            node.links = attrs["st_nlink"]
            return node

    def forget(self, given_back: Iterable[tuple[int, int]]) -> None:
        """The kernel gives back references: nodes, and how many of each."""
        with self._lock:
            for number, lookups in given_back:
                if (node := self._nodes.get(number)) is not None and node is not self._root:
                    node.lookups = max(0, node.lookups - lookups)
                    if not node.lookups:
                        self._drop(node)

    def removed(self, directory: Node, name: str) -> None:
        """A name is gone; the file behind it stays while it has other names, or is open."""
        with self._lock:
            self._detach(directory, name)

    def moved(self, directory: Node, name: str, target: Node, new: str, *, exchanged: bool) -> None:
        """A name was given to the file of another; the file that had it before lost it, or got the first."""
        with self._lock:
            first = self._unhang(directory, name)
            if exchanged:
                second = self._unhang(target, new)
                if second is not None:
                    self._hang(second, directory, name)
            else:
                self._detach(target, new)
            if first is not None:
                self._hang(first, target, new)

    def opened(self, node: Node, handle: int) -> None:
        with self._lock:
            node.handles += (handle,)

    def closed(self, number: int, handle: int) -> None:
        with self._lock:
            if (node := self._nodes.get(number)) is not None:
                node.handles = tuple(open_one for open_one in node.handles if open_one != handle)

    def _make(self, key: tuple[int, int, int]) -> Node:
        self._last += 1
        node = self._nodes[self._last] = Node(self._last, key)
        self._by_key[key] = node
        return node

    def _detach(self, directory: Node, name: str) -> None:
        if (node := self._unhang(directory, name)) is None:
            return
        node.links -= 1
        if not node.names and node.links <= 0 and self._by_key.get(node.key) is node:
            del self._by_key[node.key]  # its inode number is free, and may be that of another file next
        self._drop(node)

    def _unhang(self, directory: Node, name: str) -> Node | None:
        node = directory.children.pop(name, None)
        if node is not None:
            node.names.remove((directory, name))
        return node

    def _hang(self, node: Node, directory: Node, name: str) -> None:
        node.names.append((directory, name))
        directory.children[name] = node

    def _drop(self, node: Node) -> None:
        """Forget a node nobody refers to, and those above it that only it kept."""
        wanted = [node]
        while wanted:
            node = wanted.pop()
            if node.lookups or node.children or node is self._root or node.id not in self._nodes:
                continue
            del self._nodes[node.id]
            if self._by_key.get(node.key) is node:
                del self._by_key[node.key]
            for directory, name in node.names:
                del directory.children[name]
                if not directory.lookups:
                    wanted.append(directory)
            node.names.clear()
