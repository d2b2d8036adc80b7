"""The unit of work on large files, and the buffers for it: as many whole chunks as a processor's cache holds."""

from collections.abc import Iterator
from typing import Final

from strongroom.errors import VerifyError
from strongroom.host.sealed.tree import StoredObject
from strongroom.sealed.chunks import TAG_SIZE, Chunking

BLOCK: Final = 1 << 20  # bytes of plaintext, the size of the largest chunk
_PAGE: Final = 4096


class Room:
    """Buffers of one worker: a block of plaintext, and for each of its chunks a slot of ciphertext with its tag."""

    __slots__ = ("outs", "plain", "slots")

    def __init__(self, chunk_log2: int) -> None:
        chunk, count = 1 << chunk_log2, BLOCK >> chunk_log2
        stride = chunk + _PAGE  # slots begin on a page; behind each there is room for a tag
        sealed = memoryview(bytearray(count * stride))
        self.plain: Final = memoryview(bytearray(BLOCK))
        self.slots: Final = [sealed[n * stride : n * stride + chunk + TAG_SIZE] for n in range(count)]
        self.outs: Final = [self.plain[n * chunk : (n + 1) * chunk] for n in range(count)]

    def of(self, chunking: Chunking, first: int) -> Iterator[tuple[int, memoryview, memoryview]]:
        """Index, slot and plaintext of each chunk from `first` on that has a place here, cut to its length."""
        for slot, out in zip(self.slots, self.outs, strict=True):
            if first == chunking.count:
                return
            length = chunking.length(first)
            yield first, slot[: length + TAG_SIZE], out[:length]
            first += 1


def count_blocks(size: int) -> int:
    return -(-size // BLOCK)


def bounds(size: int, block: int) -> tuple[int, int]:
    """Where a block begins in its file, and how long it is."""
    return block * BLOCK, min(BLOCK, size - block * BLOCK)


def open_block(stored: StoredObject, block: int, room: Room) -> memoryview:
    """The plaintext of one block, in the room, every chunk of it verified.

    Raises what StoredObject.load() and .open() raise; then the room holds bytes nobody vouches for, zeros.
    """
    chunking = stored.chunking
    first = block * (BLOCK >> chunking.chunk_log2)
    chunks = list(room.of(chunking, first))
    stored.load(first, [slot[:-TAG_SIZE] for _, slot, _ in chunks])
    try:
        for index, slot, out in chunks:
            stored.open(index, slot, out)
    except VerifyError:
        room.plain[:] = bytes(BLOCK)  # GCM writes before it knows
        raise
    return room.plain[: bounds(stored.file.size, block)[1]]
