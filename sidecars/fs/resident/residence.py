"""Which files are in memory: has them filled, answers who opens them, gives them back when memory is short.

A file waits, is in memory, is streamed, or is refused (ledger.py). All that have it open must have it the same way:
the kernel refuses to mix what it reads itself with what it asks us for. So an OPEN waits while the file is filled, and
a file goes from memory to streaming only while nobody has it open.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from errno import EINTR, EIO
from typing import Final

from sidecars.fs import device as fuse
from sidecars.fs.protocol.frames import RESENT, Opcode, OpenFlag, pack_open
from sidecars.fs.resident import memory as pages
from sidecars.fs.resident.filler import Outcome, Part
from sidecars.fs.resident.ledger import Ledger, State
from sidecars.fs.resident.plan import File, cut, gigabytes
from sidecars.fs.still.operations import OPENED, HandedOver
from strongroom.errors import MachineError

_REMEMBERED: Final = 64  # interrupts
_IN_MEMORY: Final = OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH  # the kernel takes no other flag beside it


@dataclass(slots=True)
class _Filling:
    """A file that waits: the parts nobody has begun, how many are not done, and who waits for it."""

    file: File
    parts: list[Part]
    left: int
    done: int = 0  # bytes of parts that are
    begun: bool = False
    outcome: Outcome = Outcome.FILLED
    sentence: str = ""
    callers: list[tuple[int, int]] = field(default_factory=list)  # descriptor and unique


class Residence:
    """The desk for OPEN, RELEASE and INTERRUPT, and the list of what is to be filled.

    `report` gets a sentence for each file that does not verify. `reserve` is how many bytes must stay available to
    everybody else.
    """

    def __init__(
        self,
        device: int,
        memory: int,
        ledger: Ledger,
        files: Sequence[File],
        *,
        processes: int,
        reserve: int,
        report: Callable[[str], None],
        available: Callable[[], int] = pages.available,
    ) -> None:
        self._device = device
        self._memory = memory
        self._ledger = ledger
        self._reserve = reserve
        self._report = report
        self._available = available
        self._files = {file.node: file for file in files}
        self._places = {file.node: place for place, file in enumerate(files)}
        self._interrupted: deque[int] = deque(maxlen=_REMEMBERED)
        self._turn = max((ledger.turn(place) for place in self._places.values()), default=0)
        self._filling = {
            file.node: _Filling(file, parts, len(parts))
            for file in files
            if self._state(file.node) is State.WAITING
            for parts in [cut(file, processes)]
        }

    @property
    def nodes(self) -> frozenset[int]:
        return frozenset(self._files)

    def take_over(self) -> None:
        """What a predecessor was asked, and what it refused, is true of us too."""
        for node in self._files:
            if self._state(node) is State.REFUSED:
                self._report(f"node {node}: did not verify before a restart; file refused")
        if self._ledger.asked_back:
            self.give_back()

    def bytes_in_memory(self) -> int:
        return sum(file.size for node, file in self._files.items() if self._state(node) is State.RESIDENT)

    def progress(self, in_hand: int) -> str:
        """For the status: what is in memory, of what there is. `in_hand`: bytes that fillers have in hand."""
        held, total = self.bytes_in_memory(), sum(file.size for file in self._files.values())
        if self._filling:
            in_hand += sum(filling.done for filling in self._filling.values())
            return f"{gigabytes(held + in_hand)} of {gigabytes(total)} GB in memory"
        return f"{gigabytes(held)} GB in memory" if held else "nothing in memory"

    # What the master is asked

    def asked(self, device: int, unique: int, what: HandedOver) -> None:
        match what.opcode:
            case Opcode.OPEN:
                self._open(device, unique, what.subject)
            case Opcode.RELEASE:
                fuse.reply(device, unique, b"")
                # One that is given out again may have been counted already: rather one too many than one too few.
                if self._state(what.subject) is State.RESIDENT and not unique & RESENT:
                    self._close(what.subject)
            case Opcode.INTERRUPT:
                self._interrupt(what.subject)

    def _open(self, device: int, unique: int, node: int) -> None:
        match self._state(node):
            case State.WAITING if unique & ~RESENT in self._interrupted:
                fuse.refuse(device, unique, EINTR)
            case State.WAITING:
                self._filling[node].callers.append((device, unique))
            case State.RESIDENT:
                self._let_in(device, unique, node)
            case State.STREAM:
                fuse.reply(device, unique, OPENED)
            case State.REFUSED:
                fuse.refuse(device, unique, EIO)

    def _close(self, node: int) -> None:
        place = self._places[node]
        self._ledger.closed(place)
        if self._ledger.asked_back and not self._ledger.opens(place):
            self._evict(node)

    def _let_in(self, device: int, unique: int, node: int) -> None:
        place = self._places[node]
        self._turn += 1
        self._ledger.opened(place, self._turn)
        if not fuse.reply(device, unique, pack_open(_IN_MEMORY, backing=self._ledger.backing(place))):
            self._ledger.closed(place)  # taken back meanwhile

    def _interrupt(self, unique: int) -> None:
        """Whoever waits for a file is told to stop waiting. Another worker may bring the OPEN itself a moment later."""
        self._interrupted.append(unique & ~RESENT)
        for filling in self._filling.values():
            for caller in list(filling.callers):
                if caller[1] & ~RESENT == unique & ~RESENT:
                    filling.callers.remove(caller)
                    fuse.refuse(*caller, EINTR)

    # What the fillers are given, and bring back

    def next_part(self) -> Part | None:
        """What is to be read next: of a file that somebody waits for, or of the first one."""
        if self._filling and self._available() < self._reserve:
            self.give_up_waiting("memory is short")
        while ready := [filling for filling in self._filling.values() if filling.parts]:
            filling = next((one for one in ready if one.callers), ready[0])
            if filling.begun or self._begin(filling):
                return filling.parts.pop(0)
        return None

    def _begin(self, filling: _Filling) -> bool:
        try:
            pages.create(self._memory, str(filling.file.node), filling.file.size)
        except OSError as error:
            self._turn_away(filling, State.STREAM)
            _say(f"node {filling.file.node}: {(error.strerror or 'failed').lower()}; read on demand")
            return False
        filling.begun = True
        return True

    def filled(self, part: Part, outcome: Outcome, sentence: str) -> None:
        filling = self._filling[part.node]
        filling.left -= 1
        filling.done += part.length
        if outcome is not Outcome.FILLED:
            filling.left -= len(filling.parts)  # nobody needs the rest
            filling.parts.clear()
            if filling.outcome is not Outcome.FORGED:
                filling.outcome, filling.sentence = outcome, sentence
        if not filling.left:
            self._finish(filling)

    def _finish(self, filling: _Filling) -> None:
        node, sentence = filling.file.node, filling.sentence
        if filling.outcome is Outcome.FORGED:
            self._turn_away(filling, State.REFUSED)
            self._report(f"{sentence}; file refused")
            return
        if filling.outcome is Outcome.FILLED:
            try:
                backing = self._known_to_kernel(node)
            except (MachineError, OSError) as error:
                sentence = str(error)
            else:
                self._ledger.set_state(self._places[node], State.RESIDENT, backing)
                del self._filling[node]
                for caller in filling.callers:
                    self._let_in(*caller, node)
                return
        self._turn_away(filling, State.STREAM)
        _say(f"node {node}: {sentence}; read on demand")

    def _known_to_kernel(self, node: int) -> int:
        file = pages.open_file(self._memory, str(node))
        try:
            return fuse.open_backing(self._device, file)
        finally:
            os.close(file)

    def _turn_away(self, filling: _Filling, state: State) -> None:
        """The file does not come into memory: settle it, and answer who waited."""
        node = filling.file.node
        self._ledger.set_state(self._places[node], state)
        pages.remove(self._memory, str(node))
        del self._filling[node]
        for caller in filling.callers:
            self._open(*caller, node)

    # When memory is short

    def relieve(self) -> None:
        """Give back files nobody has open, one after the other, until the reserve is there again."""
        for node in self._dispensable():
            if self._available() >= self._reserve:
                return
            self._evict(node)

    def give_back(self) -> None:
        """Everything nobody has open, the rest as it is closed: the engine has read it."""
        self._ledger.ask_back()
        self.give_up_waiting("memory was asked back")
        for node in self._dispensable():
            self._evict(node)

    def give_up_waiting(self, why: str) -> None:
        """Files that nobody has begun to read ahead are read on demand."""
        for filling in [one for one in self._filling.values() if not one.begun]:
            self._turn_away(filling, State.STREAM)
            _say(f"node {filling.file.node}: {why}; read on demand")

    def _dispensable(self) -> list[int]:
        """Closed files: those read longest ago first, those never opened at the end, the last of them first."""
        closed = [
            (self._ledger.turn(place), place, node)
            for node, place in self._places.items()
            if self._state(node) is State.RESIDENT and not self._ledger.opens(place)
        ]
        closed.sort(key=lambda one: (one[0] == 0, one[0], -one[1]))
        return [node for _, _, node in closed]

    def _evict(self, node: int) -> None:
        place = self._places[node]
        backing = self._ledger.backing(place)
        self._ledger.set_state(place, State.STREAM)
        fuse.close_backing(self._device, backing)
        pages.remove(self._memory, str(node))

    def _state(self, node: int) -> State:
        return self._ledger.state(self._places[node])


def _say(sentence: str) -> None:
    print(f"strongroom-fs: {sentence}", file=sys.stderr, flush=True)
