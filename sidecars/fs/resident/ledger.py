"""What is known of each file in memory, kept beside the files, so that it outlives the daemon that wrote it.

First a record about all of them: whether their memory was asked back. Then two words of 64 bits a file, each changed as
a whole: its state with the id the kernel knows it by, and how many have it open with when it was opened last. Written
by the master alone, in an order in which being killed between two steps can make a file look open that is not, but
never the other way round.
"""

import mmap
import os
from enum import IntEnum
from typing import Final

from sidecars.fs.resident.memory import create, open_file

_NAME: Final = "ledger"
_RECORD: Final = 16  # bytes
_LOW: Final = (1 << 32) - 1


class State(IntEnum):
    WAITING = 0  # to be read; OPEN waits
    RESIDENT = 1  # in memory; OPEN is answered with the id the kernel knows it by
    STREAM = 2  # not in memory, or not any more; read on demand
    REFUSED = 3  # did not verify; OPEN is an error


class Ledger:
    """One record a file, by its place among them."""

    def __init__(self, memory: int, count: int | None) -> None:
        """Of `count` files that wait, or with None the one a predecessor left: OSError when there is none."""
        if count is not None:
            create(memory, _NAME, _RECORD * (1 + count))
        fd = open_file(memory, _NAME, writable=True)
        try:
            self._words: Final = memoryview(mmap.mmap(fd, 0)).cast("Q")
        finally:
            os.close(fd)
        self.count: Final = len(self._words) * 8 // _RECORD - 1

    @property
    def asked_back(self) -> bool:
        """Whether the memory of every file is to be given back as soon as nobody has it open."""
        return bool(self._words[0])

    def ask_back(self) -> None:
        self._words[0] = 1

    def state(self, place: int) -> State:
        return State(self._words[2 * place + 2] & _LOW)

    def backing(self, place: int) -> int:
        return self._words[2 * place + 2] >> 32

    def set_state(self, place: int, state: State, backing: int = 0) -> None:
        self._words[2 * place + 2] = backing << 32 | state

    def opens(self, place: int) -> int:
        """How many have it open, as far as is known: never less than there are."""
        return self._words[2 * place + 3] & _LOW

    def turn(self, place: int) -> int:
        """When it was opened last, as a number that grows; 0 when it never was."""
        return self._words[2 * place + 3] >> 32

    def opened(self, place: int, turn: int) -> None:
        self._words[2 * place + 3] = turn << 32 | self.opens(place) + 1

    def closed(self, place: int) -> None:
        self._words[2 * place + 3] = self.turn(place) << 32 | max(0, self.opens(place) - 1)
