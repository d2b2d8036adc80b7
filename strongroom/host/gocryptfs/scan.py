"""Every block of an object, MiB by MiB: its pins, its holes, and which of its blocks do not verify."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from strongroom.errors import VerifyError
from strongroom.host.gocryptfs.stored import StoredFile
from strongroom.sealed.gocryptfs.batch import BLOCKS, SIZE, Batch
from strongroom.sealed.gocryptfs.content import BLOCK, ContentCipher


@dataclass(frozen=True, slots=True)
class Scanned:
    """One MiB. `first` is its first block; `holes` and `bad` are numbers of blocks in the file."""

    first: int
    count: int
    pins: bytes = field(repr=False)
    holes: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()


class Scanner:
    """For one thread."""

    def __init__(self, cipher: ContentCipher) -> None:
        self._cipher: Final = cipher
        self._batch: Final = Batch(cipher)
        plain = memoryview(bytearray(SIZE))
        self._outs: Final = [plain[at : at + BLOCK] for at in range(0, SIZE, BLOCK)]

    def scan(self, stored: StoredFile) -> Iterator[Scanned]:
        """Raises what StoredFile.load() raises: an object that cannot be read at all."""
        for first in range(0, stored.blocks, BLOCKS):
            until = min(first + BLOCKS, stored.blocks)
            full = min(until, stored.full) - first
            rest = stored.rest if until > stored.full else 0
            stored.load(first, self._batch.room(0, full, rest))
            pins = self._batch.pins(0, full, rest)
            holes, bad = self._zeros(pins, first), self._bad(stored, first, until, full)
            # Zeros in a short block are no hole: that one does not verify.
            holes = tuple(number for number in holes if number not in bad)
            yield Scanned(first, until - first, pins, holes, bad)

    def _zeros(self, pins: bytes, first: int) -> tuple[int, ...]:
        size = self._cipher.overhead
        if (hole := bytes(size)) not in pins:
            return ()
        starts = range(0, len(pins), size)
        return tuple(first + index for index, at in enumerate(starts) if pins[at : at + size] == hole)

    def _bad(self, stored: StoredFile, first: int, until: int, full: int) -> tuple[int, ...]:
        try:
            self._batch.open(stored.file_id, first, 0, full, self._outs)
            numbers = range(first + full, until)
        except VerifyError:
            numbers = range(first, until)
        return tuple(number for number in numbers if not self._opens(stored, number, number - first))

    def _opens(self, stored: StoredFile, number: int, place: int) -> bool:
        short = number == stored.full
        room = self._batch.room(place, place, stored.rest) if short else self._batch.room(place, place + 1)
        out = self._outs[place][: stored.size % BLOCK] if short else self._outs[place]
        try:
            self._cipher.open_block(stored.file_id, number, room, out)
        except VerifyError:
            return False
        return True
