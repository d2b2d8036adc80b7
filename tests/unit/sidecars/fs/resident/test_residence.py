"""Mirrors sidecars/fs/resident/residence.py: every way of a file, seen from the kernel's side."""

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidecars.fs import device
from sidecars.fs.protocol.frames import RESENT, Opcode
from sidecars.fs.resident.filler import Outcome, Part
from sidecars.fs.resident.ledger import Ledger, State
from sidecars.fs.resident.plan import File
from sidecars.fs.resident.residence import Residence
from sidecars.fs.still.operations import OPENED, HandedOver
from strongroom.errors import MachineError

MIB = 1 << 20
FILES = (File(2, 0, 64 * MIB), File(3, 1, MIB), File(5, 2, MIB))
CLONE = 44


@dataclass
class Kernel:
    """What it was told, and which ids it knows."""

    replies: dict[int, bytes | int] = field(default_factory=dict)  # payload or errno, by unique
    gone: set[int] = field(default_factory=set)  # requests nobody waits for any more
    backing: set[int] = field(default_factory=set)
    given: int = 0
    willing: bool = True

    def reply(self, clone: int, unique: int, payload: bytes) -> bool:
        assert clone == CLONE
        if unique in self.gone:
            return False
        self.replies[unique] = payload
        return True

    def refuse(self, clone: int, unique: int, number: int) -> None:
        assert clone == CLONE
        self.replies[unique] = number

    def open_backing(self, _: int, file: int) -> int:
        if not self.willing:
            raise MachineError("fuse: backing file refused: operation not permitted")
        assert os.fstat(file).st_size
        self.given += 1
        self.backing.add(self.given)
        return self.given

    def close_backing(self, _: int, backing: int) -> None:
        self.backing.remove(backing)


@dataclass
class House:
    kernel: Kernel
    memory: int
    path: Path
    ledger: Ledger
    residence: Residence
    available: list[int]
    reported: list[str]

    def ask(self, opcode: Opcode, subject: int, unique: int) -> bytes | int | None:
        self.residence.asked(CLONE, unique, HandedOver(opcode, subject))
        return self.kernel.replies.get(unique)

    def fill(self, outcome: Outcome = Outcome.FILLED, sentence: str = "") -> None:
        """Everything that waits."""
        while (part := self.residence.next_part()) is not None:
            self.residence.filled(part, outcome, sentence)

    def names(self) -> set[str]:
        return set(os.listdir(self.path)) - {"ledger"}


def house(path: Path, kernel: Kernel, memory: int, *, count: int | None) -> House:
    available, reported = [1 << 40], list[str]()
    ledger = Ledger(memory, count)
    residence = Residence(
        9,
        memory,
        ledger,
        FILES,
        processes=2,
        reserve=1 << 30,
        report=reported.append,
        available=lambda: available[0],
    )
    return House(kernel, memory, path, ledger, residence, available, reported)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    for name in ("reply", "refuse", "open_backing", "close_backing"):
        monkeypatch.setattr(device, name, getattr(made, name))
    return made


@pytest.fixture
def home(tmp_path: Path, kernel: Kernel) -> Iterator[House]:
    memory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield house(tmp_path, kernel, memory, count=len(FILES))
    os.close(memory)


def passed(backing: int) -> bytes:
    return struct.pack("=QIi", 0, 0b10100000, backing)


def test_files_are_filled_in_order_and_opened_by_their_id(home: House) -> None:
    parts = []
    while (part := home.residence.next_part()) is not None:
        parts.append(part)
    assert parts == [
        Part(2, 0, 0, 32 * MIB),
        Part(2, 0, 32 * MIB, 32 * MIB),
        Part(3, 1, 0, MIB),
        Part(5, 2, 0, MIB),
    ]
    for number, part in enumerate(parts):
        assert home.ask(Opcode.OPEN, 2, 100 + number) == (None if number < 2 else passed(1))
        home.residence.filled(part, Outcome.FILLED, "")
    assert [home.kernel.replies[100 + number] for number in range(4)] == [passed(1)] * 4
    assert home.ask(Opcode.OPEN, 5, 200) == passed(3)
    assert home.names() == {"2", "3", "5"}
    assert home.residence.progress(0) == "0.1 GB in memory"


def test_a_file_somebody_waits_for_is_next(home: House) -> None:
    first = home.residence.next_part()
    assert first is not None
    assert first.node == 2
    home.ask(Opcode.OPEN, 5, 1)
    order = [part.node for _ in range(3) if (part := home.residence.next_part())]
    assert order == [5, 2, 3]


def test_progress(home: House) -> None:
    part = home.residence.next_part()
    assert part is not None
    assert home.residence.progress(16 * MIB) == "0.0 of 0.1 GB in memory"
    home.residence.filled(part, Outcome.FILLED, "")
    assert home.residence.progress(32 * MIB) == "0.1 of 0.1 GB in memory"


@pytest.mark.guarantee("G4")
def test_a_file_that_does_not_verify_is_refused(home: House) -> None:
    home.ask(Opcode.OPEN, 2, 1)
    part = home.residence.next_part()
    assert part is not None
    other = home.residence.next_part()
    assert other is not None
    home.residence.filled(part, Outcome.FORGED, "object a: chunk 7: tag does not verify")
    assert home.kernel.replies == {}  # another process still has its other half in hand
    home.residence.filled(other, Outcome.UNREAD, "object a: gone")
    assert home.kernel.replies == {1: errno.EIO}
    assert home.reported == ["object a: chunk 7: tag does not verify; file refused"]
    assert home.ask(Opcode.OPEN, 2, 2) == errno.EIO
    assert home.names() == set()
    home.fill()
    assert home.ask(Opcode.OPEN, 3, 3) == passed(1)


@pytest.mark.guarantee("G4")
def test_the_rest_of_a_file_that_failed_is_not_read(home: House) -> None:
    part = home.residence.next_part()
    assert part is not None
    home.residence.filled(part, Outcome.FORGED, "object a: chunk 0: x")
    following = home.residence.next_part()
    assert following is not None
    assert following.node == 3
    assert home.ask(Opcode.OPEN, 2, 1) == errno.EIO


@pytest.mark.parametrize("outcome", [Outcome.UNREAD, Outcome.NO_ROOM])
def test_a_file_that_cannot_be_held_is_streamed(home: House, outcome: Outcome) -> None:
    home.ask(Opcode.OPEN, 2, 1)
    home.fill(outcome, "no space left on device")
    assert home.kernel.replies == {1: OPENED}
    assert home.ask(Opcode.OPEN, 2, 2) == OPENED
    assert home.names() == set()
    assert home.reported == []
    assert home.residence.progress(0) == "nothing in memory"


def test_a_kernel_that_takes_no_backing_file(home: House) -> None:
    home.kernel.willing = False
    home.ask(Opcode.OPEN, 2, 1)
    home.fill()
    assert home.kernel.replies == {1: OPENED}


def test_whoever_waits_can_be_told_not_to(home: House) -> None:
    home.ask(Opcode.OPEN, 2, 1)
    home.ask(Opcode.OPEN, 2, 2)
    home.residence.asked(CLONE, 9, HandedOver(Opcode.INTERRUPT, 1))
    assert home.kernel.replies == {1: errno.EINTR}
    home.fill()
    assert home.kernel.replies == {1: errno.EINTR, 2: passed(1)}


def test_an_interrupt_may_come_first(home: House) -> None:
    home.residence.asked(CLONE, 9, HandedOver(Opcode.INTERRUPT, 1))
    assert home.ask(Opcode.OPEN, 2, 1 | RESENT) == errno.EINTR
    home.residence.asked(CLONE, 9, HandedOver(Opcode.INTERRUPT, 77))  # of a read that is long done
    home.fill()
    assert home.ask(Opcode.OPEN, 2, 1) == passed(1)


def open_files(home: House, *nodes: int) -> None:
    for number, node in enumerate(nodes):
        assert home.ask(Opcode.OPEN, node, 1000 + number) != errno.EIO


def close_files(home: House, *nodes: int) -> None:
    for number, node in enumerate(nodes):
        assert home.ask(Opcode.RELEASE, node, 2000 + number) == b""


def test_when_memory_is_short_what_was_read_longest_ago_goes_first(home: House) -> None:
    home.fill()
    open_files(home, 5, 3)
    close_files(home, 5, 3)
    evicted = []
    for _ in range(3):
        moments = iter([0, 1 << 40])  # short, then not any more
        home.residence._available = moments.__next__
        before = home.names()
        home.residence.relieve()
        evicted += sorted(before - home.names())
    assert evicted == ["5", "3", "2"]  # what nobody has read yet, at the end
    assert home.kernel.backing == set()
    assert home.ask(Opcode.OPEN, 5, 1) == OPENED


def test_an_open_file_stays(home: House) -> None:
    home.fill()
    open_files(home, 2, 2, 3)
    close_files(home, 2)
    home.available[0] = 0
    home.residence.relieve()
    assert home.names() == {"2", "3"}
    close_files(home, 2, 3)
    home.residence.relieve()
    assert home.names() == set()


def test_what_is_asked_back_goes_as_it_is_closed(home: House) -> None:
    home.fill()
    open_files(home, 2)
    home.residence.give_back()
    assert home.names() == {"2"}
    close_files(home, 2)
    assert home.names() == set()
    assert home.kernel.backing == set()


def test_what_nobody_has_begun_is_given_up_when_memory_is_short(home: House) -> None:
    begun = home.residence.next_part()
    assert begun is not None
    home.ask(Opcode.OPEN, 3, 1)
    home.available[0] = 0
    rest = home.residence.next_part()
    assert rest is not None
    assert rest.node == begun.node  # its pages are taken already
    assert home.residence.next_part() is None
    assert home.kernel.replies == {1: OPENED}
    for part in (begun, rest):
        home.residence.filled(part, Outcome.FILLED, "")
    assert home.ask(Opcode.OPEN, 2, 2) == passed(1)


def test_an_open_that_was_taken_back_is_not_counted(home: House) -> None:
    home.fill()
    home.kernel.gone.add(1)
    home.ask(Opcode.OPEN, 2, 1)
    assert home.ledger.opens(0) == 0


def test_a_release_that_is_given_out_again_is_not_counted_twice(home: House) -> None:
    home.fill()
    open_files(home, 2, 2)
    close_files(home, 2)
    assert home.ask(Opcode.RELEASE, 2, 1 | RESENT) == b""
    assert home.ledger.opens(0) == 1


def test_a_successor_goes_on(home: House) -> None:
    """One file in memory and open, one refused, one half filled."""
    part = home.residence.next_part()
    assert part is not None
    other = home.residence.next_part()
    assert other is not None
    for one in (part, other):
        home.residence.filled(one, Outcome.FILLED, "")
    open_files(home, 2)
    third = home.residence.next_part()
    assert third is not None
    home.residence.filled(third, Outcome.FORGED, "object b: chunk 0: x")
    assert home.residence.next_part() is not None
    (home.path / "5").write_bytes(b"half")
    after = house(home.path, home.kernel, home.memory, count=None)
    assert [after.ledger.state(place) for place in range(3)] == [State.RESIDENT, State.REFUSED, State.WAITING]
    assert after.ask(Opcode.OPEN, 2, 1) == passed(1)
    assert after.ask(Opcode.OPEN, 3, 2) == errno.EIO
    assert after.ledger.opens(0) == 2
    again = after.residence.next_part()
    assert again == Part(5, 2, 0, MIB)
    assert (home.path / "5").read_bytes() == bytes(MIB)


@pytest.mark.guarantee("G4")
def test_a_successor_says_again_what_was_refused(home: House) -> None:
    part = home.residence.next_part()
    assert part is not None
    home.residence.filled(part, Outcome.FORGED, "object a: chunk 0: x")
    after = house(home.path, home.kernel, home.memory, count=None)
    assert after.reported == []
    after.residence.take_over()
    assert after.reported == ["node 2: did not verify before a restart; file refused"]
    assert [after.ledger.state(place) for place in range(3)] == [State.REFUSED, State.WAITING, State.WAITING]


def test_a_successor_gives_back_what_its_predecessor_was_asked_for(home: House) -> None:
    home.fill()
    open_files(home, 2)
    home.residence.give_back()
    after = house(home.path, home.kernel, home.memory, count=None)
    after.residence.take_over()
    assert after.names() == {"2"}
    close_files(after, 2)
    assert after.names() == set()
    assert after.kernel.backing == set()
