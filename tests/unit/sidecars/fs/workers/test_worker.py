"""Mirrors sidecars/fs/workers/worker.py: what a worker writes to the kernel and tells the master."""

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sidecars.fs.protocol.frames import Opcode
from sidecars.fs.still.operations import HandedOver, Operations
from sidecars.fs.still.tree import Tree
from sidecars.fs.workers import worker
from sidecars.fs.workers.worker import MAX_WORD, PULSE, Failure, Word, Worker, parse_word
from strongroom.errors import MachineError, VerifyError
from strongroom.host.stored import Item

FILE, AHEAD = 2, 3
TREE = Tree.build(
    [
        Item(path=b"file", mode=stat.S_IFREG | 0o644, size=100, key=0),
        Item(path=b"ahead", mode=stat.S_IFREG | 0o644, size=100, key=1),
    ],
    unit=4096,
    uid=0,
)


class Reader:
    error: Exception | None = None

    def read(self, key: int, offset: int, size: int) -> memoryview:
        if self.error is not None:
            raise self.error
        return memoryview(bytes(range(100)))[offset : offset + size]

    def read_into(self, key: int, offset: int, out: memoryview) -> None:
        raise NotImplementedError


@dataclass
class Setting:
    """A pair of sockets for /dev/fuse and one for the master's line; the worker ends when /dev/fuse does."""

    worker: Worker
    reader: Reader
    kernel: socket.socket
    line: socket.socket
    pulse: memoryview
    asked: list[bytes] = field(default_factory=list)

    def ask(self, opcode: int, body: bytes = b"", *, node: int = FILE, unique: int = 7) -> None:
        header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 0, 0, 0)
        self.kernel.send(header + body)

    def serve(self) -> list[tuple[int, int, bytes]]:
        """Error, unique and payload of every reply."""
        self.kernel.shutdown(socket.SHUT_WR)
        self.worker.serve()
        replies = []
        self.kernel.setblocking(False)
        try:
            while frame := self.kernel.recv(1 << 16):
                length, error, unique = struct.unpack("=IiQ", frame[:16])
                assert length == len(frame)
                replies.append((-error, unique, frame[16:]))
        except BlockingIOError:
            pass
        return replies

    def told(self) -> list[Failure | tuple[int, HandedOver]]:
        self.line.setblocking(False)
        words = []
        try:
            while word := self.line.recv(MAX_WORD):
                words.append(parse_word(word))
        except BlockingIOError:
            pass
        return words


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    here, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line, master = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    readv = os.readv

    def until_shut(fd: int, buffers: list[memoryview]) -> int:
        if not (count := readv(fd, buffers)):
            raise OSError(errno.ENODEV, "unmounted")
        return count

    monkeypatch.setattr(os, "readv", until_shut)
    reader, pulse = Reader(), memoryview(bytearray(PULSE.size))
    made = Worker(here.fileno(), Operations(TREE, ahead=[AHEAD]), reader, line, pulse)
    with here, kernel, line, master:
        yield Setting(made, reader, kernel, master, pulse)


def a_read(offset: int, size: int) -> bytes:
    return struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0)


def test_replies(setting: Setting) -> None:
    setting.ask(Opcode.READ, a_read(10, 5))
    setting.ask(Opcode.FORGET, bytes(8))
    setting.ask(Opcode.WRITE, bytes(40), unique=8)
    setting.ask(Opcode.STATFS, unique=1 << 63 | 9)
    replies = setting.serve()
    assert replies[0] == (0, 7, bytes(range(10, 15)))
    assert replies[1] == (errno.EROFS, 8, b"")
    assert replies[2] == (0, 1 << 63 | 9, TREE.statfs)
    assert len(replies) == 3
    assert setting.told() == []
    assert PULSE.unpack(setting.pulse) == (0.0,)


@pytest.mark.guarantee("G4")
def test_what_does_not_verify_is_an_error_and_told_once(setting: Setting) -> None:
    setting.reader.error = VerifyError("object a: chunk 1: x")
    for unique in (7, 8):
        setting.ask(Opcode.READ, a_read(0, 5), unique=unique)
    assert setting.serve() == [(errno.EIO, 7, b""), (errno.EIO, 8, b"")]
    assert setting.told() == [Failure(Word.FORGED, "object a: chunk 1: x; read refused")]


@pytest.mark.parametrize(
    ("error", "words"),
    [(MachineError("object a: gone"), "object a: gone"), (OSError(5, "io"), "[Errno 5] io")],
)
def test_a_store_that_fails_is_told_once_and_counted(setting: Setting, error: Exception, words: str) -> None:
    setting.reader.error = error
    for unique in (7, 8):
        setting.ask(Opcode.READ, a_read(0, 5), unique=unique)
    assert setting.serve() == [(errno.EIO, 7, b""), (errno.EIO, 8, b"")]
    assert setting.told() == [
        Failure(Word.STORE_FAILED, f"{words}; read refused"),
        Failure(Word.STORE_FAILED, ""),
    ]


@pytest.mark.guarantee("G4")
def test_a_store_that_fails_silences_nothing(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_MAX_REPORTED", 2)
    for number in range(4):
        setting.worker._failed(Opcode.READ, MachineError(f"object {number}: gone"))
    setting.worker._failed(Opcode.READ, VerifyError("object a: chunk 1: x"))
    told = setting.told()
    assert len(told) == 5
    assert told[-1] == Failure(Word.FORGED, "object a: chunk 1: x; read refused")


def test_a_bug_costs_one_request(setting: Setting) -> None:
    setting.reader.error = ZeroDivisionError("oops")
    setting.ask(Opcode.READ, a_read(0, 5))
    setting.ask(Opcode.LOOKUP, b"no end", node=1, unique=8)
    setting.ask(Opcode.STATFS, unique=9)
    assert setting.serve() == [(errno.EIO, 7, b""), (errno.EIO, 8, b""), (0, 9, TREE.statfs)]
    assert setting.told() == [
        Failure(Word.MISHAP, "request 15 failed: ZeroDivisionError('oops')"),
        Failure(Word.MISHAP, "fuse: name without its one NUL; read refused"),
    ]


def test_a_reply_the_kernel_refuses(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev

    def picky(fd: int, frames: list[bytes]) -> int:
        if len(frames) > 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        return writev(fd, frames)

    monkeypatch.setattr(os, "writev", picky)
    setting.ask(Opcode.STATFS)
    assert setting.serve() == [(errno.EIO, 7, b"")]
    assert setting.told() == [Failure(Word.MISHAP, "fuse: reply to request 17 refused: invalid argument")]


def test_what_is_the_masters_is_handed_over(setting: Setting) -> None:
    setting.ask(Opcode.OPEN, bytes(8), node=AHEAD)
    setting.ask(Opcode.RELEASE, bytes(24), node=AHEAD, unique=1 << 63 | 8)
    setting.ask(Opcode.INTERRUPT, struct.pack("=Q", 7), node=0, unique=9)
    assert setting.serve() == []
    assert setting.told() == [
        (7, HandedOver(Opcode.OPEN, AHEAD)),
        (1 << 63 | 8, HandedOver(Opcode.RELEASE, AHEAD)),
        (9, HandedOver(Opcode.INTERRUPT, 7)),
    ]
