"""The master: starts the workers, starts another when one ends, answers what only it may answer.

It holds a copy of every worker's descriptor, so that a worker's death costs its readers a moment: the kernel gives out
again (RESEND) what the dead one had in hand. One thread; whatever may take long is done by children.
"""

import mmap
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from errno import EIO
from typing import Final

from sidecars.fs import device as fuse
from sidecars.fs.mounting import abort
from sidecars.fs.still.operations import Operations
from sidecars.fs.workers.kept import Held
from sidecars.fs.workers.loop import Loop
from sidecars.fs.workers.process import LAST_CHANCE, Process, fork, kill_all
from sidecars.fs.workers.standby import Desk, Standby
from sidecars.fs.workers.worker import MAX_WORD, PULSE, Failure, Word, Worker, parse_word
from strongroom.errors import MachineError
from strongroom.host.stored import Source

_MOST_DEATHS: Final = 60  # of workers,
_WITHIN: Final = 60.0  # seconds
_STUCK: Final = 1.0  # seconds that every worker must wait for the store before somebody stands in for them


@dataclass(slots=True)
class _Slot:
    """One worker's place. The clone outlives the process."""

    clone: int
    pulse: memoryview
    process: Process
    line: socket.socket


class Master:
    """Serves a mounted device with one worker for each clone of it.

    `report` gets one sentence, once, for everything that is not what was sealed: an object and a chunk number, never
    content. Other failures are lines in the journal. `store` are the descriptors that readers need.
    """

    def __init__(
        self,
        held: Held,
        operations: Operations,
        source: Source,
        *,
        loop: Loop,
        store: Collection[int],
        report: Callable[[str], None],
        desk: Desk | None = None,
    ) -> None:
        self._held = held
        self._operations = operations
        self._source = source
        self._loop = loop
        self._store = store
        self._report = report
        self._desk = desk
        self._said: set[str] = set()
        self.store_failures = 0  # reads that it gave nothing for
        self._pulses = memoryview(mmap.mmap(-1, PULSE.size * len(held.clones)))
        self._slots: list[_Slot] = []
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._unmounted = False
        self._standby = Standby(held.device, operations, desk, loop)

    @property
    def alive(self) -> bool:
        """Whether the mount is there."""
        return not self._unmounted

    @property
    def longest_wait(self) -> float:
        """Seconds since the oldest request that a worker has in hand was taken up; 0 when none has any."""
        return max(self._waits(), default=0.0)

    def look(self) -> None:
        """Once a second or so: see that somebody answers what takes no store."""
        if self._held.terms.resend and self._slots and min(self._waits()) > _STUCK:
            self._standby.begin()
        else:
            self._standby.end()

    def _waits(self) -> list[float]:
        """For each worker, the seconds since it took up what it has in hand; 0 when it has nothing."""
        now = time.monotonic()
        return [now - since if (since := PULSE.unpack(slot.pulse)[0]) else 0.0 for slot in self._slots]

    def start(self, *, adopted: bool) -> None:
        """Begin to answer; `adopted`: also what a predecessor had in hand."""
        for number, clone in enumerate(self._held.clones):
            pulse = self._pulses[number * PULSE.size : (number + 1) * PULSE.size]
            self._slots.append(self._hire(clone, pulse))
        if adopted:
            fuse.resend(self._held.device)

    def end(self, timeout: float) -> None:
        """Wait for the workers after the unmount, at most `timeout` seconds: a busy mount keeps them."""
        self._standby.end()
        deadline = time.monotonic() + timeout
        while self._slots and time.monotonic() < deadline:
            self._loop.step(max(0.0, deadline - time.monotonic()))
        if not kill_all([slot.process for slot in self._slots]) and not abort(self._held.mounted):
            _tell(
                "a worker does not end, and no connection can be aborted here: who reads waits for the store"
            )
        for slot in list(self._slots):
            self._dismiss(slot, patience=0.0)

    def _hire(self, clone: int, pulse: memoryview) -> _Slot:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pulse[:] = bytes(PULSE.size)

        def work() -> None:
            Worker(clone, self._operations, self._source.reader(), theirs, pulse).serve()

        try:
            process = fork(work, keep={*self._store, clone, theirs.fileno()})
        finally:
            theirs.close()
        ours.setblocking(False)
        slot = _Slot(clone, pulse, process, ours)
        self._loop.watch(ours.fileno(), lambda: self._hear(slot))
        self._loop.watch(process.pidfd, lambda: self._ended(slot))
        return slot

    def _dismiss(self, slot: _Slot, patience: float = LAST_CHANCE) -> int | None:
        while self._hear(slot):
            pass
        self._loop.forget(slot.line.fileno())
        self._loop.forget(slot.process.pidfd)
        slot.line.close()
        self._slots.remove(slot)
        return slot.process.reap(patience)

    def _hear(self, slot: _Slot) -> bool:
        """Take one message of a worker; False when there is none."""
        try:
            word = slot.line.recv(MAX_WORD)
        except BlockingIOError:
            return False
        if not word:
            return False
        parsed = parse_word(word)
        if isinstance(parsed, Failure):
            self._failed(parsed)
            return True
        unique, what = parsed
        try:
            if self._desk is None:
                fuse.refuse(slot.clone, unique, EIO)
            else:
                self._desk.asked(slot.clone, unique, what)
        except OSError as error:
            words = (error.strerror or "failed").lower()
            self._say(f"fuse: reply to request {what.opcode} refused: {words}", _tell)
            fuse.refuse(slot.clone, unique, EIO)
        return True

    def _failed(self, failure: Failure) -> None:
        if failure.kind is Word.STORE_FAILED:
            self.store_failures += 1
        if failure.sentence:
            self._say(failure.sentence, self._report if failure.kind is Word.FORGED else _tell)

    def _say(self, sentence: str, how: Callable[[str], None]) -> None:
        if sentence not in self._said:  # another worker may have met the same chunk
            self._said.add(sentence)
            how(sentence)

    def _ended(self, slot: _Slot) -> None:
        """A worker is gone. Unless the mount is, another takes its place and its requests."""
        if (status := self._dismiss(slot)) == 0 or not fuse.is_connected(self._held.device):
            self._unmounted = True
            return
        _tell(f"a worker ended with status {status}, another takes over")
        now = time.monotonic()
        if len(self._deaths) == _MOST_DEATHS and now - self._deaths[0] < _WITHIN:
            raise MachineError(f"workers: {_MOST_DEATHS} ended within {now - self._deaths[0]:.0f} s")
        self._deaths.append(now)
        clone = slot.clone
        if not self._held.terms.resend:  # an error for its readers is better than silence
            clone = fuse.clone(self._held.device)
            self._held.clones[self._held.clones.index(slot.clone)] = clone
            os.close(slot.clone)
        self._slots.append(self._hire(clone, slot.pulse))
        if self._held.terms.resend:
            fuse.resend(self._held.device)


def _tell(sentence: str) -> None:
    print(f"strongroom-fs: {sentence}", file=sys.stderr, flush=True)
