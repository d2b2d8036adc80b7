"""Long work on large files by a few threads: reading, sealing, opening and hashing all let go of the interpreter.

A job is one file, cut into blocks. Each worker takes the next block of the job with the fewest workers on it, so that
many files are worked on side by side and one large file by everybody. What has to happen in order (a digest) is done
for one block after the other.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)

Progress = Callable[[int], None]  # bytes done so far

_LOOK: Final = 0.2  # seconds between two reports of progress


class Job(Protocol[R_contra]):
    """One file's work. Only work() is called from several threads at once."""

    @property
    def blocks(self) -> int:
        """How many; 0 for a job that is nothing but its start and its end."""
        ...

    def start(self) -> None:
        """Before the first block."""
        ...

    def work(self, block: int, room: R_contra) -> int:
        """One block, in any order; the result is how many bytes it moved."""
        ...

    def follow(self, block: int, room: R_contra) -> None:
        """After work() of the same block, by the same thread; for one block after the other."""
        ...

    def finish(self) -> None:
        """After the last block."""
        ...

    def drop(self) -> None:
        """Instead of finish(), when anything failed: let go of what start() took."""
        ...


def default_workers() -> int:
    """One for each processor this process may run on, at most 16: beyond that, memory is the limit."""
    return min(16, len(os.sched_getaffinity(0)))


@dataclass(slots=True, eq=False)
class _Open(Generic[R]):
    job: Job[R]
    blocks: int
    taken: int = 0  # blocks given to a worker
    busy: int = 0  # of them, not done yet
    followed: int = 0


class Crew(Generic[R]):
    """Threads that share jobs out among themselves. Each has a room: buffers made once."""

    def __init__(self, room: Callable[[], R], *, workers: int) -> None:
        self._room: Final = room
        self._workers: Final = max(1, workers)
        lock = threading.Lock()
        self._changed: Final = threading.Condition(lock)  # what the workers wait for
        self._over: Final = threading.Condition(lock)  # what the caller waits for
        self._waiting: deque[Job[R]] = deque()
        self._open: list[_Open[R]] = []
        self._moved = 0
        self._at_work = 0
        self._failure: BaseException | None = None

    def run(self, jobs: Iterable[Job[R]], progress: Progress = lambda _: None) -> None:
        """Do every job, or raise what failed first: then all others are dropped where they are.

        `progress` is called by the caller's own thread, the last time when all is done.
        """
        self._waiting.extend(jobs)
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self._workers)]
        self._at_work = len(threads)
        for thread in threads:
            thread.start()
        try:
            self._wait(progress)
        except BaseException as error:  # noqa: BLE001 - an interrupt: it comes to the main thread alone
            self._fail(error)
        for thread in threads:
            thread.join()
        for one in self._open:
            one.job.drop()
        if self._failure is not None:
            raise self._failure
        progress(self._moved)

    def _wait(self, progress: Progress) -> None:
        while True:
            with self._over:
                if not self._over.wait_for(lambda: not self._at_work, _LOOK):
                    moved = self._moved
                else:
                    return
            progress(moved)  # without the lock: a terminal may be slow

    def _serve(self) -> None:
        try:
            room = self._room()
            while (taken := self._take()) is not None:
                one, block = taken
                if block < one.blocks:
                    moved = one.job.work(block, room)
                    if not self._await_turn(one, block):
                        break
                    one.job.follow(block, room)
                    self._account(one, moved)
                else:
                    self._end(one)
        except BaseException as error:  # noqa: BLE001 - raised again by run(), in the caller's thread
            self._fail(error)
        with self._changed:
            self._at_work -= 1
            self._over.notify_all()

    def _take(self) -> tuple[_Open[R], int] | None:
        """The next block to do, or of a job all done the number after its last: who gets that ends the job."""
        with self._changed:
            while self._failure is None:
                for one in self._open:
                    if one.followed == one.blocks and one.taken == one.blocks:
                        one.taken += 1
                        return one, one.blocks
                ready = [one for one in self._open if one.taken < one.blocks]
                if self._waiting and all(one.busy for one in ready):
                    ready = [self._begin(self._waiting.popleft())]
                    if not ready[0].blocks:
                        continue
                if ready:
                    least = min(ready, key=lambda one: one.busy)
                    least.taken, least.busy = least.taken + 1, least.busy + 1
                    return least, least.taken - 1
                if not self._open:
                    return None
                self._changed.wait()
        return None

    def _begin(self, job: Job[R]) -> _Open[R]:
        job.start()
        self._open.append(one := _Open(job, job.blocks))
        return one

    def _await_turn(self, one: _Open[R], block: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: one.followed == block or self._failure is not None)
            return self._failure is None

    def _account(self, one: _Open[R], moved: int) -> None:
        with self._changed:
            one.followed, one.busy, self._moved = one.followed + 1, one.busy - 1, self._moved + moved
            self._changed.notify_all()

    def _end(self, one: _Open[R]) -> None:
        one.job.finish()
        with self._changed:
            self._open.remove(one)
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()
