"""The filler processes: started when there is something to fill, gone when there is not.

One that dies is replaced and its part begun anew; a part that outlives none of three is given up.
"""

import mmap
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sidecars.fs.resident.filler import DONE, MAX_OUTCOME, Filler, Outcome, Part, parse_outcome
from sidecars.fs.workers.loop import Loop
from sidecars.fs.workers.process import LAST_CHANCE, Process, fork, kill_all
from strongroom.host.stored import Source

_TRIES: Final = 3


@dataclass(slots=True)
class _Place:
    done: memoryview
    process: Process
    line: socket.socket
    part: Part
    tries: int = 1


class Fillers:
    """`take` gives the next part, or None when nothing is left; `bring` is told how each went."""

    def __init__(
        self,
        count: int,
        memory: int,
        source: Source,
        *,
        loop: Loop,
        store: Collection[int],
        take: Callable[[], Part | None],
        bring: Callable[[Part, Outcome, str], None],
    ) -> None:
        self._count = count
        self._memory = memory
        self._source = source
        self._loop = loop
        self._store = store
        self._take = take
        self._bring = bring
        self._done = memoryview(mmap.mmap(-1, DONE.size * count))
        self._places: list[_Place] = []

    @property
    def in_hand(self) -> int:
        """Bytes that are there already of parts that are not done."""
        return sum(DONE.unpack(place.done)[0] for place in self._places)

    def start(self) -> None:
        for number in range(self._count):
            if (part := self._take()) is None:
                return
            self._hire(self._done[number * DONE.size : (number + 1) * DONE.size], part)

    def end(self) -> None:
        kill_all([place.process for place in self._places])
        for place in list(self._places):
            self._dismiss(place, patience=0.0)

    def _hire(self, done: memoryview, part: Part, tries: int = 1) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        done[:] = bytes(DONE.size)

        def work() -> None:
            Filler(self._source.reader(), self._memory, theirs, done).work()

        try:
            process = fork(work, keep={*self._store, self._memory, theirs.fileno()})
        finally:
            theirs.close()
        place = _Place(done, process, ours, part, tries)
        self._places.append(place)
        self._loop.watch(ours.fileno(), lambda: self._hear(place))
        _hand(place)

    def _dismiss(self, place: _Place, patience: float = LAST_CHANCE) -> None:
        self._loop.forget(place.line.fileno())
        place.line.close()
        self._places.remove(place)
        place.process.reap(patience)

    def _hear(self, place: _Place) -> None:
        try:
            word = place.line.recv(MAX_OUTCOME)
        except OSError:
            word = b""
        if not word:
            self._replace(place)
            return
        self._bring(place.part, *parse_outcome(word))
        if (part := self._take()) is None:
            self._dismiss(place)  # the line ends, and with it the filler
            return
        place.part, place.tries = part, 1
        _hand(place)

    def _replace(self, place: _Place) -> None:
        """It ended without a word."""
        self._dismiss(place)
        if place.tries < _TRIES:
            self._hire(place.done, place.part, place.tries + 1)
            return
        self._bring(place.part, Outcome.UNREAD, f"{_TRIES} processes ended while reading it")
        if (part := self._take()) is not None:
            self._hire(place.done, part)


def _hand(place: _Place) -> None:
    with suppress(OSError):  # it has died: its line ends, which we hear next
        place.line.send(place.part.pack())
