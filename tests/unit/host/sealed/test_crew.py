"""Mirrors strongroom/host/sealed/crew.py."""

import signal
import threading
import time

import pytest

from strongroom.host.sealed.crew import Crew, default_workers


class Noted:
    """A job that notes what happened to it."""

    def __init__(self, blocks: int, *, fail_at: str = "", pause: float = 0.0) -> None:
        self.blocks = blocks
        self.worked: list[int] = []
        self.followed: list[int] = []
        self.marks: list[str] = []
        self.most_at_once = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._fail_at = fail_at
        self._pause = pause

    def _mark(self, what: str) -> None:
        self.marks.append(what)
        if what == self._fail_at:
            raise OSError(28, what)

    def start(self) -> None:
        self._mark("start")

    def work(self, block: int, room: list[int]) -> int:
        with self._lock:
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        time.sleep(self._pause * (1 + block % 3))
        room[0] = block
        self.worked.append(block)
        if f"work {block}" == self._fail_at:
            raise OSError(28, self._fail_at)
        with self._lock:
            self._busy -= 1
        return 10

    def follow(self, block: int, room: list[int]) -> None:
        assert room[0] == block  # the same worker's room, untouched since
        self.followed.append(block)
        if f"follow {block}" == self._fail_at:
            raise OSError(28, self._fail_at)

    def finish(self) -> None:
        self._mark("finish")

    def drop(self) -> None:
        self._mark("drop")


def crew(workers: int) -> Crew[list[int]]:
    return Crew(lambda: [-1], workers=workers)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_block_once_and_in_order_where_it_matters(workers: int) -> None:
    jobs = [Noted(count, pause=0.0001) for count in (5, 1, 0, 17, 3, 0)]
    done: list[int] = []
    crew(workers).run(jobs, done.append)
    for job in jobs:
        assert sorted(job.worked) == job.followed == [*range(job.blocks)]
        assert job.marks == ["start", "finish"]
    assert done == sorted(done) and done[-1] == 10 * 26


def test_nothing_to_do() -> None:
    done: list[int] = []
    crew(3).run([], done.append)
    assert done == [0]


def test_one_large_file_is_worked_on_by_all() -> None:
    job = Noted(12, pause=0.01)
    crew(3).run([job])
    assert job.most_at_once == 3


def test_files_are_worked_on_side_by_side() -> None:
    jobs = [Noted(6, pause=0.005) for _ in range(3)]
    crew(3).run(jobs)
    assert max(job.most_at_once for job in jobs) <= 2  # somebody may come over when a job runs out


@pytest.mark.parametrize("where", ["start", "work 2", "follow 2", "finish"])
def test_the_first_failure_ends_it(where: str) -> None:
    jobs = [Noted(4), Noted(4, fail_at=where), *(Noted(1000, pause=0.0001) for _ in range(4))]
    with pytest.raises(OSError, match=where):
        crew(2).run(jobs)
    assert jobs[1].marks == (["start"] if where == "start" else [*jobs[1].marks[:-1], "drop"])
    assert not any(len(job.worked) == 1000 for job in jobs[2:])
    for job in jobs:  # whatever was begun has an end of one kind
        assert job.marks in (
            [],
            ["start"],
            ["start", "finish"],
            ["start", "drop"],
            ["start", "finish", "drop"],
        )


def test_an_interrupt_ends_it_too() -> None:
    job = Noted(10_000, pause=0.001)
    timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            crew(2).run([job])
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert job.marks == ["start", "drop"] and len(job.worked) < 10_000
    assert not [thread for thread in threading.enumerate() if "_serve" in thread.name]


def test_a_room_that_cannot_be_had() -> None:
    def fail() -> list[int]:
        raise MemoryError

    with pytest.raises(MemoryError):
        Crew(fail, workers=2).run([Noted(3)])


def test_workers_are_few() -> None:
    assert 1 <= default_workers() <= 16
