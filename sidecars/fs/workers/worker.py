"""One worker: read a request, read the store, decrypt, reply with one writev. Again.

It holds its clone of the device, the store's descriptors, the files' keys and a line to the master; buffers are made
once, and nothing is shared that would take a lock. A word of shared memory says since when it is at work.
"""

import errno
import socket
import time
from enum import IntEnum
from struct import Struct
from typing import Final

from sidecars.fs import device as fuse
from sidecars.fs.protocol.frames import REQUEST_BUFFER, Request
from sidecars.fs.still.operations import HandedOver, Operations, Range, Refusal, Silence
from strongroom.errors import MachineError, ProtocolError, VerifyError
from strongroom.host.stored import Reader

PULSE: Final = Struct(
    "=d"
)  # monotonic seconds at which the request in hand was taken up; 0 when there is none
_HANDED: Final = Struct("=BIQQ")
_IDLE: Final = PULSE.pack(0.0)
MAX_WORD: Final = 4096  # bytes of one message
_MAX_REPORTED: Final = 1000


class Word(IntEnum):
    """What a message to the master is about: its first byte."""

    FAILED = 1  # a sentence follows
    HANDED_OVER = 2  # opcode, unique and subject follow


def parse_word(data: bytes) -> str | tuple[int, HandedOver]:
    """A sentence about a failure, or a request's unique and what it asks."""
    if data[0] == Word.FAILED:
        return data[1:].decode(errors="replace")
    _, opcode, unique, subject = _HANDED.unpack(data)
    return unique, HandedOver(opcode, subject)


class Worker:
    def __init__(
        self, device: int, operations: Operations, reader: Reader, line: socket.socket, pulse: memoryview
    ) -> None:
        self._device = device
        self._operations = operations
        self._reader = reader
        self._line = line
        self._pulse = pulse
        self._reported: set[str] = set()

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        buffer, pulse = memoryview(bytearray(REQUEST_BUFFER)), self._pulse
        while (frame := fuse.receive(self._device, buffer)) is not None:
            PULSE.pack_into(pulse, 0, time.monotonic())
            self._answer(Request.parse(frame))
            pulse[:] = _IDLE

    def _answer(self, request: Request) -> None:
        try:
            answer = self._operations.answer(request)
            if isinstance(answer, Range):
                answer = self._reader.read(answer.key, answer.offset, answer.size)
        except (VerifyError, MachineError, ProtocolError) as error:
            self._say(f"{error}; read refused")
            answer = Refusal(errno.EIO)
        except Exception as error:  # noqa: BLE001  # one request must not take the others down
            self._say(f"request {request.opcode} failed: {error!r}")
            answer = Refusal(errno.EIO)
        try:
            match answer:
                case Silence():
                    pass
                case Refusal(number):
                    fuse.refuse(self._device, request.unique, number)
                case HandedOver(opcode, subject):
                    self._line.send(_HANDED.pack(Word.HANDED_OVER, opcode, request.unique, subject))
                case _:
                    fuse.reply(self._device, request.unique, answer)
        except OSError as error:
            self._say(
                f"fuse: reply to request {request.opcode} refused: {(error.strerror or 'failed').lower()}"
            )
            fuse.refuse(self._device, request.unique, errno.EIO)

    def _say(self, sentence: str) -> None:
        if sentence in self._reported or len(self._reported) >= _MAX_REPORTED:
            return
        self._reported.add(sentence)
        self._line.send(bytes([Word.FAILED]) + sentence.encode(errors="replace")[: MAX_WORD - 1])
