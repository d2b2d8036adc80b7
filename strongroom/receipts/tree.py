"""The Merkle tree of RFC 9162, section 2: heads, and proofs that a leaf is in it or that it only grew.

    leaf    SHA-256(0x00 || entry)
    node    SHA-256(0x01 || left || right)

A tree may forget its oldest leaves, in whole subtrees of equal size, whose roots it keeps: head and proofs for what
came later stay what they were.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from strongroom.errors import FormatError, VerifyError

SIZE: Final = 32  # bytes of every hash
EMPTY: Final = sha256().digest()  # the head of no leaves
MAX_PATH: Final = 64  # hashes of one proof


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class _Level:
    """The nodes at one height, of which the first `gone` are forgotten."""

    __slots__ = ("gone", "nodes")

    def __init__(self) -> None:
        self.gone, self.nodes = 0, bytearray()

    def count(self) -> int:
        return self.gone + len(self.nodes) // SIZE

    def get(self, index: int) -> bytes:
        at = (index - self.gone) * SIZE
        if at < 0 or at >= len(self.nodes):
            raise FormatError(f"log: the leaves around {index} of this height are not kept")
        return bytes(self.nodes[at : at + SIZE])

    def forget(self, upto: int) -> None:
        del self.nodes[: max(0, upto - self.gone) * SIZE]
        self.gone = max(self.gone, upto)


class Tree:
    """Every node that is the root of a whole subtree, so that a proof costs as many lookups as it is long."""

    def __init__(self) -> None:
        self.size = 0  # leaves
        self._levels: list[_Level] = []

    def append(self, leaf: bytes) -> None:
        """`leaf` is its hash."""
        self._put(0, leaf)
        self.size += 1

    def graft(self, root: bytes, height: int) -> None:
        """Append a whole subtree of 2**height leaves that are forgotten already."""
        if self.size % (1 << height):
            raise FormatError(f"log: {self.size} leaves, want a multiple of {1 << height}")
        for lower in range(height):
            self._level(lower).forget((self.size >> lower) + (1 << height - lower))
        self._put(height, root)
        self.size += 1 << height

    def forget(self, first: int, height: int) -> None:
        """Keep nothing below the subtrees of 2**height leaves that lie before leaf `first`, a multiple of that."""
        for lower in range(min(height, len(self._levels))):
            self._levels[lower].forget(first >> lower)

    @property
    def first(self) -> int:
        """The first leaf that is kept."""
        return self._levels[0].gone if self._levels else 0

    def head(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves, by default of all. FormatError for what is not there."""
        size = self.size if size is None else self._within(size)
        return self._range(0, size) if size else EMPTY

    def subtree(self, height: int, index: int) -> bytes:
        return self._level(height).get(index)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that leaf `index` is among the first `size` (2.1.3.1)."""
        if not 0 <= index < self._within(size):
            raise FormatError(f"log: leaf {index} of {size} leaves")
        path, low, high = list[bytes](), 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, first: int, second: int) -> list[bytes]:
        """The proof that the first `first` of `second` leaves are what they were when there were no more (2.1.4.1)."""
        if not 0 < first <= self._within(second):
            raise FormatError(
                f"log: consistency of {first} with {second} leaves, want 1 up to the second size"
            )
        path, low, high, whole = list[bytes](), 0, second, True
        while first != high:
            middle = low + _split(high - low)
            if first <= middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low, whole = middle, False
        return ([] if whole else [self._range(low, high)]) + path[::-1]

    def _put(self, height: int, node: bytes) -> None:
        while True:
            level = self._level(height)
            level.nodes += node
            if (count := level.count()) % 2:
                return
            node, height = node_hash(level.get(count - 2), node), height + 1

    def _level(self, height: int) -> _Level:
        while len(self._levels) <= height:
            self._levels.append(_Level())
        return self._levels[height]

    def _range(self, low: int, high: int) -> bytes:
        count = high - low
        if not count & count - 1:
            height = count.bit_length() - 1
            return self._level(height).get(low >> height)
        middle = low + _split(count)
        return node_hash(self._range(low, middle), self._range(middle, high))

    def _within(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise FormatError(f"log: {size} leaves, want at most {self.size}")
        return size


def require_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], head: bytes) -> None:
    """Raise VerifyError unless the path leads from this leaf hash to this head (2.1.3.2)."""
    last, found = size - 1, leaf
    if not 0 <= index < size or len(path) > MAX_PATH:
        raise VerifyError(f"log: leaf {index} of {size} leaves")
    for node in path:
        if not last:
            raise VerifyError("log: the proof is longer than the way from this leaf to the head")
        if index & 1 or index == last:
            found = node_hash(node, found)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = node_hash(found, node)
        index, last = index >> 1, last >> 1
    if last or found != head:
        raise VerifyError("log: the proof does not lead from this leaf to the head")


def require_consistency(
    first: int, first_head: bytes, second: int, second_head: bytes, path: Sequence[bytes]
) -> None:
    """Raise VerifyError unless the tree of the second head begins with all leaves of the first (2.1.4.2)."""
    if not 0 <= first <= second or len(path) > MAX_PATH:
        raise VerifyError(f"log: it had {first} leaves and then {second}")
    if first in (0, second):
        if path or (first_head != (second_head if first else EMPTY)):
            raise VerifyError(f"log: two heads of {first} leaves, and they differ")
        return
    nodes, index, last = [*path], first - 1, second - 1
    if not first & first - 1:
        nodes.insert(0, first_head)
    while index & 1:
        index, last = index >> 1, last >> 1
    if not nodes:
        raise VerifyError("log: the proof is empty")
    old = new = nodes[0]
    for node in nodes[1:]:
        if not last:
            raise VerifyError("log: the proof is longer than the tree is high")
        if index & 1 or index == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, node)
        index, last = index >> 1, last >> 1
    if last or (old, new) != (first_head, second_head):
        raise VerifyError("log: the later head does not go on from the earlier one")


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1
