"""Mirrors sidecars/fs/workers/standby.py: what the master answers itself, and what it leaves for later."""

import errno
import socket
import stat
import struct
from collections.abc import Iterator

import pytest

from sidecars.fs.protocol.frames import Opcode
from sidecars.fs.still.operations import HandedOver, Operations
from sidecars.fs.still.tree import Tree
from sidecars.fs.workers.loop import Loop
from sidecars.fs.workers.standby import Standby
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
READ = struct.pack("=QQIIQII", 0, 10, 5, 0, 0, 0, 0)


class Desk:
    def __init__(self) -> None:
        self.was_asked: list[HandedOver] = []

    def asked(self, device: int, unique: int, what: HandedOver) -> None:
        self.was_asked.append(what)


class House:
    """A pair of sockets for /dev/fuse."""

    def __init__(self) -> None:
        self.device, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        self.loop, self.desk = Loop(), Desk()
        self.standby = Standby(self.device.fileno(), Operations(TREE, ahead=[AHEAD]), self.desk, self.loop)

    def ask(self, opcode: int, body: bytes = b"", node: int = FILE) -> list[tuple[int, int, bytes]]:
        """Error, unique and payload of what is answered."""
        self.kernel.send(struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 7, node, 0, 0, 0, 0, 0) + body)
        self.loop.step(0)
        return self.heard()

    def heard(self) -> list[tuple[int, int, bytes]]:
        replies = []
        try:
            while frame := self.kernel.recv(1 << 16):
                _, error, unique = struct.unpack("=IiQ", frame[:16])
                replies.append((error, unique, frame[16:]))
        except BlockingIOError:
            pass
        return replies


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.standby.end()
    house.loop.close()
    house.device.close()
    house.kernel.close()


def test_off_duty_nothing_is_taken(house: House) -> None:
    assert house.ask(Opcode.STATFS) == []
    house.standby.begin()
    house.loop.step(0)
    assert house.heard() == [(0, 7, TREE.statfs)]


def test_what_takes_no_store_is_answered_and_reads_come_again(house: House) -> None:
    house.standby.begin()
    house.standby.begin()
    assert house.ask(Opcode.GETATTR, bytes(16)) == [(0, 7, TREE.attr(FILE))]
    assert house.ask(Opcode.WRITE, bytes(40)) == [(-errno.EROFS, 7, b"")]
    assert house.ask(Opcode.FORGET, bytes(8)) == []
    assert house.ask(Opcode.OPEN, bytes(8), node=AHEAD) == []
    assert house.desk.was_asked == [HandedOver(Opcode.OPEN, AHEAD)]
    assert house.ask(Opcode.READ, READ) == []
    house.standby.end()
    assert house.heard() == [(7, 0, b"")]  # RESEND
    house.standby.end()
    assert house.heard() == []
    assert house.device.getblocking()


def test_without_a_read_nothing_comes_again(house: House) -> None:
    house.standby.begin()
    house.ask(Opcode.STATFS)
    house.standby.end()
    assert house.heard() == []


def test_an_unmount_ends_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> int:
        raise OSError(errno.ENODEV, "unmounted")

    house.standby.begin()
    monkeypatch.setattr("sidecars.fs.device.os.readv", gone)
    assert house.ask(Opcode.READ, READ) == []
    assert not house.standby.on_duty
