"""One worker: read a request, read the store, decrypt, reply with one writev. Again.

It holds its clone of the device, the store's descriptors, the files' keys and a line to the master; buffers are made
once, and nothing is shared that would take a lock. A word of shared memory says since when it is at work.
"""

import errno
import socket
import time
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from sidecars.fs import device as fuse
from sidecars.fs.protocol.frames import REQUEST_BUFFER, Opcode, Request, parse_read
from sidecars.fs.still.operations import Answer, HandedOver, Operations, Range, Refusal, Silence
from strongroom.errors import MachineError, ProtocolError, StrongroomError
from strongroom.host.stored import Reader

PULSE: Final = Struct(
    "=d"
)  # monotonic seconds at which the request in hand was taken up; 0 when there is none
_HANDED: Final = Struct("=BIQQ")
_IDLE: Final = PULSE.pack(0.0)
MAX_WORD: Final = 4096  # bytes of one message
_MAX_REPORTED: Final = 1000  # sentences of each kind: a store that fails must not silence what was changed
_READ: Final = int(Opcode.READ)


class Word(IntEnum):
    """What a message to the master is about: its first byte."""

    FORGED = 1  # what the store gave is not what was sealed: a sentence follows
    STORE_FAILED = 2  # it gave nothing: a sentence follows, or nothing when it was said before
    MISHAP = 3  # anything else: a sentence follows
    HANDED_OVER = 4  # opcode, unique and subject follow


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that ended with an error."""

    kind: Word
    sentence: str


def parse_word(data: bytes) -> Failure | tuple[int, HandedOver]:
    """What failed, or a request's unique and what it asks."""
    if data[0] != Word.HANDED_OVER:
        return Failure(Word(data[0]), data[1:].decode(errors="replace"))
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
        self._reported = {kind: set[str]() for kind in Word}

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        buffer, pulse = memoryview(bytearray(REQUEST_BUFFER)), self._pulse
        while (frame := fuse.receive(self._device, buffer)) is not None:
            PULSE.pack_into(pulse, 0, time.monotonic())
            if (wanted := parse_read(frame)) is not None:
                unique, node, offset, size = wanted
                self._send(_READ, unique, self._read(node, offset, size))
            else:
                request = Request.parse(frame)
                self._send(request.opcode, request.unique, self._answer(request))
            pulse[:] = _IDLE

    def _read(self, node: int, offset: int, size: int) -> Answer:
        try:
            answer = self._operations.read(node, offset, size)
            return self._reader.read(*answer) if type(answer) is Range else answer
        except Exception as error:  # noqa: BLE001  # one request must not take the others down
            return self._failed(_READ, error)

    def _answer(self, request: Request) -> Answer:
        try:
            answer = self._operations.answer(request)
            return self._reader.read(*answer) if isinstance(answer, Range) else answer
        except Exception as error:  # noqa: BLE001  # as above
            return self._failed(request.opcode, error)

    def _failed(self, opcode: int, error: Exception) -> Refusal:
        match error:
            case ProtocolError():
                self._say(Word.MISHAP, f"{error}; read refused")
            case MachineError() | OSError():
                self._say(Word.STORE_FAILED, f"{error}; read refused")
            case StrongroomError():
                self._say(Word.FORGED, f"{error}; read refused")
            case _:
                self._say(Word.MISHAP, f"request {opcode} failed: {error!r}")
        return Refusal(errno.EIO)

    def _send(self, asked: int, unique: int, answer: Answer) -> None:
        try:
            match answer:
                case memoryview() | bytes():
                    fuse.reply(self._device, unique, answer)
                case Silence():
                    pass
                case Refusal(number):
                    fuse.refuse(self._device, unique, number)
                case HandedOver(opcode, subject):
                    self._line.send(_HANDED.pack(Word.HANDED_OVER, opcode, unique, subject))
        except OSError as error:
            words = (error.strerror or "failed").lower()
            self._say(Word.MISHAP, f"fuse: reply to request {asked} refused: {words}")
            fuse.refuse(self._device, unique, errno.EIO)

    def _say(self, kind: Word, sentence: str) -> None:
        said = self._reported[kind]
        if sentence in said or len(said) >= _MAX_REPORTED:
            if kind is not Word.STORE_FAILED:  # which is counted
                return
            sentence = ""
        else:
            said.add(sentence)
        self._line.send(bytes([kind]) + sentence.encode(errors="replace")[: MAX_WORD - 1])
