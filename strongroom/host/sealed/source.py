"""A sealed tree as a Source: its table from the manifest, and the way of a range: load the chunks, open each.

What the store refuses is tried again a few times, with growing pauses; what does not verify never is.
"""

import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from strongroom.errors import MachineError, ProtocolError, VerifyError
from strongroom.host.open_files import OpenFiles
from strongroom.host.sealed.tree import SealedTree, StoredObject
from strongroom.host.stored import MAX_READ, Item, make_buffer
from strongroom.sealed.chunks import TAG_SIZE
from strongroom.sealed.keys import Octets
from strongroom.sealed.manifest import Directory, Entry, InlineFile, SealedFile, Symlink

PAUSES: Final = (0.05, 0.2, 0.8)  # seconds before each further try at a store that fails
_PAGE: Final = 4096


class SealedSource:
    """The items and readers of one opened sealed tree."""

    def __init__(self, tree: SealedTree) -> None:
        self._tree: Final = tree
        self.name: Final = tree.manifest.name
        self.unit: Final = tree.header.chunk_size
        self.items: Final = tuple(_items(tree))

    @classmethod
    @contextmanager
    def open(cls, source: Path, *, model_key: Octets, epoch: int, root: bytes) -> Iterator[Self]:
        """Open the tree at `source`, for as long as its readers are at work. Raises what SealedTree.open() raises."""
        with SealedTree.open(source, model_key=model_key, epoch=epoch, root=root) as tree:
            yield cls(tree)

    def reader(self) -> "SealedReader":
        return SealedReader(self._tree)


class SealedReader:
    """Reads with buffers made once, and opens objects as they are wanted.

    For one thread: what read() gives out is valid until the next read().
    """

    def __init__(self, tree: SealedTree, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._objects = tree.objects
        self._files = OpenFiles(lambda key: tree.stored(tree.objects[key]))
        self._chunk_size = chunk_size = tree.header.chunk_size
        self._pause = pause
        self._most = MAX_READ // chunk_size + 1  # chunks that the largest read touches
        stride = chunk_size + _PAGE  # page-aligned slots, room for a tag behind
        sealed = make_buffer(self._most * stride)
        self._plain = make_buffer(self._most * chunk_size)
        self._slots = [sealed[n * stride : n * stride + chunk_size + TAG_SIZE] for n in range(self._most)]
        self._rooms = [slot[:-TAG_SIZE] for slot in self._slots]
        self._outs = [self._plain[n * chunk_size : (n + 1) * chunk_size] for n in range(self._most)]

    def read(self, key: int, offset: int, size: int) -> memoryview:
        """The plaintext of a range inside one file, every chunk of it verified."""
        if not 0 < size <= MAX_READ:
            raise ProtocolError(f"read of {size} bytes, want 1..{MAX_READ}")
        first, start = divmod(offset, self._chunk_size)
        count = -(-(start + size) // self._chunk_size)
        try:
            self._open(key, first, self._outs[:count])
        except VerifyError:
            self._plain[: count * self._chunk_size] = bytes(
                count * self._chunk_size
            )  # GCM writes before it knows
            raise
        return self._plain[start : start + size]

    def read_into(self, key: int, offset: int, out: memoryview) -> None:
        """As read(), of any length, into `out`. Whole chunks are decrypted where they shall lie."""
        size = self._chunk_size
        if start := offset % size:
            head = min(size - start, len(out))
            out[:head] = self.read(key, offset, head)
            out, offset = out[head:], offset + head
        while len(out) >= size:
            count = min(self._most, len(out) // size)
            self._open(key, offset // size, [out[n * size : (n + 1) * size] for n in range(count)])
            out, offset = out[count * size :], offset + count * size
        if len(out):
            out[:] = self.read(key, offset, len(out))

    def _open(self, key: int, first: int, outs: Sequence[memoryview]) -> None:
        """Fill `outs`, one chunk each; the file's last chunk may be shorter than what it is put into."""
        count, chunking = len(outs), self._objects[key].chunking
        slots, rooms = self._slots[:count], self._rooms[:count]
        if (length := chunking.size - (first + count - 1) * self._chunk_size) < self._chunk_size:
            slots[-1] = slots[-1][: length + TAG_SIZE]
            rooms[-1] = slots[-1][:length]
            outs = [*outs[:-1], outs[-1][:length]]
        stored = self._load(key, first, rooms)
        for index, (slot, out) in enumerate(zip(slots, outs, strict=True), first):
            stored.open(index, slot, out)

    def _load(self, key: int, first: int, rooms: Sequence[memoryview]) -> StoredObject:
        """Fill `rooms`; the result is what opens them."""
        for pause in PAUSES:
            try:
                (stored := self._files.get(key)).load(first, rooms)
                return stored
            except MachineError:
                self._pause(pause)
        (stored := self._files.get(key)).load(first, rooms)
        return stored


def _items(tree: SealedTree) -> Iterator[Item]:
    keys = {stored.file.path: key for key, stored in enumerate(tree.objects)}
    for entry in tree.manifest.entries:
        yield _item(entry, keys)


def _item(entry: Entry, keys: dict[str, int]) -> Item:
    path, mtime_ns = entry.path.encode(), entry.mtime_ns
    match entry:
        case Directory():
            return Item(path=path, mode=stat.S_IFDIR | entry.mode, mtime_ns=mtime_ns)
        case Symlink():
            target = entry.target.encode()
            return Item(
                path=path, mode=stat.S_IFLNK | 0o777, mtime_ns=mtime_ns, size=len(target), target=target
            )
        case InlineFile():
            mode, content = stat.S_IFREG | entry.mode, entry.content
            return Item(path=path, mode=mode, mtime_ns=mtime_ns, size=len(content), content=content)
        case SealedFile():
            mode, key = stat.S_IFREG | entry.mode, keys[entry.path]
            return Item(path=path, mode=mode, mtime_ns=mtime_ns, size=entry.size, key=key)
