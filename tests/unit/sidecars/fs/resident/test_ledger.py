"""Mirrors sidecars/fs/resident/ledger.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecars.fs.resident.ledger import Ledger, State


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_successor_reads_what_was_written(memory: int) -> None:
    first = Ledger(memory, 3)
    assert [first.state(place) for place in range(3)] == [State.WAITING] * 3
    first.set_state(1, State.RESIDENT, backing=(1 << 31) - 1)
    first.set_state(2, State.REFUSED)
    first.opened(1, turn=7)
    first.opened(1, turn=(1 << 32) - 1)
    first.closed(1)
    second = Ledger(memory, None)
    assert second.count == 3
    assert [second.state(place) for place in range(3)] == [State.WAITING, State.RESIDENT, State.REFUSED]
    assert (second.backing(1), second.opens(1), second.turn(1)) == ((1 << 31) - 1, 1, (1 << 32) - 1)
    assert (second.opens(0), second.turn(0)) == (0, 0)


def test_no_more_are_closed_than_were_opened(memory: int) -> None:
    ledger = Ledger(memory, 1)
    ledger.closed(0)
    assert ledger.opens(0) == 0


def test_a_change_of_state_leaves_who_has_it_open(memory: int) -> None:
    ledger = Ledger(memory, 1)
    ledger.opened(0, turn=1)
    ledger.set_state(0, State.STREAM)
    assert ledger.opens(0) == 1


def test_nothing_was_left(memory: int) -> None:
    with pytest.raises(FileNotFoundError):
        Ledger(memory, None)
