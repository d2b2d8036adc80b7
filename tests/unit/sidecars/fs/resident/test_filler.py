"""Mirrors sidecars/fs/resident/filler.py."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecars.fs.resident.filler import DONE, MAX_OUTCOME, Filler, Outcome, Part, parse_outcome
from sidecars.fs.resident.memory import HUGE_PAGE, create
from strongroom.errors import MachineError, VerifyError
from tests.fakes.sealed import pattern

CONTENT = pattern(3 * HUGE_PAGE + 100)


class Reader:
    def __init__(self, broken_at: int | None, error: Exception) -> None:
        self.broken_at = broken_at
        self.error = error
        self.seen: list[tuple[int, int]] = []

    def read(self, key: int, offset: int, size: int) -> memoryview:
        raise NotImplementedError

    def read_into(self, key: int, offset: int, out: memoryview) -> None:
        self.seen.append((offset, len(out)))
        out[:] = CONTENT[offset : offset + len(out)]
        if self.broken_at is not None and offset <= self.broken_at < offset + len(out):
            raise self.error


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    create(fd, "7", len(CONTENT))
    yield fd
    os.close(fd)


def fill(
    memory: int, part: Part, broken_at: int | None = None, error: Exception | None = None
) -> tuple[Outcome, str]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    done = memoryview(bytearray(DONE.size))
    with ours, theirs:
        ours.send(part.pack())
        ours.shutdown(socket.SHUT_WR)
        Filler(Reader(broken_at, error or ValueError()), memory, theirs, done).work()
        assert DONE.unpack(done) == (0,)
        return parse_outcome(ours.recv(MAX_OUTCOME))


PARTS = [Part(7, 0, 0, 2 * HUGE_PAGE), Part(7, 0, 2 * HUGE_PAGE, HUGE_PAGE + 100)]


def test_parts_make_the_file(memory: int, tmp_path: Path) -> None:
    for part in reversed(PARTS):
        assert Part.parse(part.pack()) == part
        assert fill(memory, part) == (Outcome.FILLED, "")
    assert (tmp_path / "7").read_bytes() == CONTENT


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    ("error", "outcome"),
    [(VerifyError("object a: chunk 9: x"), Outcome.FORGED), (MachineError("object a: gone"), Outcome.UNREAD)],
)
def test_nothing_of_what_failed_is_there(
    memory: int, tmp_path: Path, error: Exception, outcome: Outcome
) -> None:
    assert fill(memory, PARTS[0]) == (Outcome.FILLED, "")
    assert fill(memory, PARTS[1], 3 * HUGE_PAGE, error) == (outcome, str(error))
    assert (tmp_path / "7").read_bytes() == CONTENT[: 3 * HUGE_PAGE] + bytes(100)


def test_a_write_that_stops_short_is_gone_on_with(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[: 1 << 20], offset))
    assert fill(memory, PARTS[0]) == (Outcome.FILLED, "")
    assert (tmp_path / "7").read_bytes()[: 2 * HUGE_PAGE] == CONTENT[: 2 * HUGE_PAGE]


def test_no_room(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert fill(memory, PARTS[0]) == (Outcome.NO_ROOM, "no space left on device")
