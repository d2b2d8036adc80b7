"""One filler: takes a part of a file, decrypts it into memory, says how it went. Again.

A huge page at a time is decrypted and verified in a buffer of its own, then written where it shall lie. Nothing that
does not verify gets there, and that memory runs out is an error and no signal. Decrypting in place, through a map,
saves the copy and costs more: a fault for each page, and zeros in it first.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Final, Self

from sidecars.fs.resident.memory import HUGE_PAGE, open_file
from strongroom.errors import MachineError, VerifyError
from strongroom.host.stored import Reader, make_buffer

DONE: Final = Struct("=Q")  # bytes of the part in hand that are there already
MAX_OUTCOME: Final = 4096  # bytes of one message
_FIRST_TO_GO: Final = "800"  # oom_score_adj: without a filler everything still works
_PART: Final = Struct("=QQQQ")
_OUTCOME: Final = Struct("=B")


class Outcome(IntEnum):
    FILLED = 0
    FORGED = 1  # a chunk does not verify
    UNREAD = 2  # the store failed
    NO_ROOM = 3


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [offset, offset + length) of one file; `offset` is a multiple of the huge page."""

    node: int
    key: int
    offset: int
    length: int

    def pack(self) -> bytes:
        return _PART.pack(self.node, self.key, self.offset, self.length)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        return cls(*_PART.unpack(data))


def parse_outcome(data: bytes) -> tuple[Outcome, str]:
    """How it went, and a sentence if it did not."""
    return Outcome(_OUTCOME.unpack_from(data)[0]), data[_OUTCOME.size :].decode(errors="replace")


class Filler:
    def __init__(self, reader: Reader, memory: int, line: socket.socket, done: memoryview) -> None:
        self._reader = reader
        self._memory = memory
        self._line = line
        self._done = done
        self._piece = make_buffer(HUGE_PAGE)

    def work(self) -> None:
        """Until the master closes the line."""
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
        while word := self._line.recv(_PART.size):
            outcome, sentence = self._fill(Part.parse(word))
            DONE.pack_into(self._done, 0, 0)
            self._line.send((_OUTCOME.pack(outcome) + sentence.encode(errors="replace"))[:MAX_OUTCOME])

    def _fill(self, part: Part) -> tuple[Outcome, str]:
        file = open_file(self._memory, str(part.node), writable=True)
        try:
            for start in range(0, part.length, HUGE_PAGE):
                piece = self._piece[: min(HUGE_PAGE, part.length - start)]
                self._reader.read_into(part.key, part.offset + start, piece)
                _write(file, piece, part.offset + start)
                DONE.pack_into(self._done, 0, start + len(piece))
        except VerifyError as error:
            self._piece[:] = bytes(HUGE_PAGE)  # a decryption that failed has left bytes nobody vouches for
            return Outcome.FORGED, str(error)
        except MachineError as error:
            return Outcome.UNREAD, str(error)
        except OSError as error:
            return Outcome.NO_ROOM, (error.strerror or "failed").lower()
        finally:
            os.close(file)
        return Outcome.FILLED, ""


def _write(file: int, piece: memoryview, offset: int) -> None:
    while piece:
        count = os.pwrite(file, piece, offset)
        piece, offset = piece[count:], offset + count
