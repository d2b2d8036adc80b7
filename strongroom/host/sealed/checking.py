"""Reading back what is stored, all of it or a sample, and a sentence for everything that is not as it was sealed."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from strongroom.errors import MachineError, VerifyError
from strongroom.host.sealed.blocks import BLOCK, Room, bounds, count_blocks, open_block
from strongroom.host.sealed.tree import StoredObject
from strongroom.sealed.chunks import TAG_SIZE
from strongroom.sealed.volume import OpenedObject

Stored = Callable[[OpenedObject], StoredObject]


class Checking:
    """A job for a crew: one object read back. `damage` is complete, and in order, when it is finished."""

    def __init__(self, opened: OpenedObject, stored: Stored, *, hashed: bool = False) -> None:
        self._opened: Final = opened
        self._open_stored: Final = stored
        self._stored: StoredObject | None = None
        self._digest: Final = sha256() if hashed and opened.file.sha256 is not None else None
        self._missing: str | None = None
        self._damage: dict[int, str] = {}

    @property
    def damage(self) -> list[str]:
        """A sentence for each chunk that does not open, or one for the whole object."""
        return [self._missing] if self._missing else [self._damage[index] for index in sorted(self._damage)]

    @property
    def blocks(self) -> int:
        return 0 if self._stored is None else count_blocks(self._opened.file.size)

    def start(self) -> None:
        try:
            self._stored = self._open_stored(self._opened)
        except (VerifyError, MachineError) as error:
            self._missing = str(error)

    def work(self, block: int, room: Room) -> int:
        try:
            open_block(self._found, block, room)
        except (VerifyError, MachineError):
            self._look_closer(block, room)
        return bounds(self._opened.file.size, block)[1]

    def follow(self, block: int, room: Room) -> None:
        if self._digest is not None:
            self._digest.update(room.plain[: bounds(self._opened.file.size, block)[1]])

    def finish(self) -> None:
        file, digest = self._opened.file, self._digest
        if digest is not None and file.sha256 and not self.damage and digest.digest() != file.sha256:
            self._missing = (
                f"object {file.object_name}: digest is {digest.hexdigest()}, want {file.sha256.hex()}"
            )
        self.drop()

    def drop(self) -> None:
        if self._stored is not None:
            self._stored.close()

    @property
    def _found(self) -> StoredObject:
        assert self._stored is not None  # there are no blocks without it
        return self._stored

    def _look_closer(self, block: int, room: Room) -> None:
        chunking = self._opened.chunking
        first = block * (BLOCK >> chunking.chunk_log2)
        for index in range(first, min(first + (BLOCK >> chunking.chunk_log2), chunking.count)):
            self._look_at(index, room)

    def _look_at(self, index: int, room: Room) -> None:
        length = self._opened.chunking.length(index)
        slot, out = room.slots[0][: length + TAG_SIZE], room.outs[0][:length]
        try:
            self._found.load(index, [slot[:-TAG_SIZE]])
            self._found.open(index, slot, out)
        except (VerifyError, MachineError) as error:
            self._damage[index] = str(error)


class Sampling(Checking):
    """The same for some chunks alone: those of the given numbers."""

    def __init__(self, opened: OpenedObject, stored: Stored, chosen: Sequence[int]) -> None:
        super().__init__(opened, stored)
        self._chosen: Final = chosen

    @property
    def blocks(self) -> int:
        return 0 if self._stored is None else len(self._chosen)

    def work(self, block: int, room: Room) -> int:
        self._look_at(self._chosen[block], room)
        return self._opened.chunking.length(self._chosen[block])

    def follow(self, block: int, room: Room) -> None:
        pass
