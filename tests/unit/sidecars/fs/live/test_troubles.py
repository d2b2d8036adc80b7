"""Mirrors sidecars/fs/live/troubles.py: what the store refuses for a time is told for that time."""

import errno
import os
from threading import Thread
from typing import Final

import pytest

from sidecars.fs.live.operations import refuse
from sidecars.fs.live.troubles import LASTING, MOST, OF_THE_STORE, Troubles, UnverifiedError

FULL: Final = "no space left on device"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def troubles(clock: Clock, said: list[str]) -> Troubles:
    return Troubles(said.append, clock)


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "a-name-on-disk")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ESTALE, errno.EIO])
def test_it_is_told_while_it_lasts_and_forgiven(
    troubles: Troubles, clock: Clock, said: list[str], number: int
) -> None:
    assert troubles.sentence == ""
    words = os.strerror(number).lower()
    for count in (1, 2, 3):
        troubles.refused(error(number))
        times = "time" if count == 1 else "times"
        assert troubles.sentence == f"the store failed {count} {times}, just now: {words}"
    clock.now += LASTING - 1
    troubles.look()
    assert said == [f"store: {words}"]
    clock.now += 1
    troubles.look()
    assert troubles.sentence == "the store failed 3 times"
    assert said == [f"store: {words}", f"store: no more {words!r} for 60 s"]
    troubles.refused(error(number))  # and told again
    assert said[2:] == [f"store: {words}"]
    assert troubles.sentence == f"the store failed 4 times, just now: {words}"


def test_the_latest_is_told(troubles: Troubles, clock: Clock) -> None:
    for number in (errno.ENOSPC, errno.ESTALE, errno.ENOSPC):
        clock.now += 1
        troubles.refused(error(number))
    assert troubles.sentence.endswith(FULL)
    clock.now += LASTING - 1
    troubles.look()  # the stale handle is over, the full disk is not
    assert troubles.sentence.endswith(FULL)


@pytest.mark.parametrize(
    "number",
    [errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EINVAL, errno.ENOTEMPTY, errno.EFBIG, errno.ENODATA],
)
def test_an_answer_to_what_was_asked_is_no_trouble(troubles: Troubles, said: list[str], number: int) -> None:
    assert number not in OF_THE_STORE
    troubles.refused(error(number))
    assert (troubles.sentence, said) == ("", [])


@pytest.mark.guarantee("G4")
def test_what_does_not_verify_is_not_the_stores_trouble(troubles: Troubles, said: list[str]) -> None:
    """It is EIO too, and has been reported for good."""
    refusal = UnverifiedError()
    assert refusal.errno == errno.EIO in OF_THE_STORE
    troubles.refused(refusal)
    assert (troubles.sentence, said) == ("", [])


def test_what_we_pass_on_is(troubles: Troubles) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        refuse(errno.ENOSPC)
    troubles.refused(caught.value)
    assert troubles.sentence.endswith(FULL)


def test_no_name_of_the_store_is_told(troubles: Troubles, said: list[str]) -> None:
    troubles.refused(error(errno.ESTALE))
    assert "a-name-on-disk" not in troubles.sentence + "".join(said)


def test_many_kinds_fill_no_journal(troubles: Troubles, clock: Clock, said: list[str]) -> None:
    for number in range(10 * MOST):
        troubles.met(f"inode {number}: directory without its IV")
    assert len(said) == MOST
    assert troubles.count == 10 * MOST
    clock.now += LASTING
    troubles.look()
    assert len(said) == 2 * MOST


def test_threads_count_together(troubles: Troubles) -> None:
    def meet() -> None:
        for _ in range(500):
            troubles.refused(error(errno.ESTALE))

    threads = [Thread(target=meet) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles.count == 2000
