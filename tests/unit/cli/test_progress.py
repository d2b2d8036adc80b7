"""Mirrors strongroom/cli/progress.py."""

import io

import pytest

from strongroom.cli import progress as module
from strongroom.cli.progress import Progress, size


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_sizes() -> None:
    assert [size(512), size(12_300_000), size(140_200_000_000)] == ["512 bytes", "12.3 MB", "140.2 GB"]


def test_a_line() -> None:
    progress = Progress("sealing", 140_000_000_000, stream=io.StringIO())
    assert progress.line(70_000_000_000, 35) == "sealing 70.0 GB of 140.0 GB (50%), 2000 MB/s, 0:35 left"
    assert progress.line(1_000_000_000, 100).endswith("10 MB/s, 3:51:40 left")
    assert progress.line(0, 0).endswith("(0%), 0 MB/s, ? left")
    assert "(100%)" in Progress("sealing", 0, stream=io.StringIO()).line(0, 1)


def test_a_log_gets_a_line_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("sealing", 100_000_000, stream=stream)
    for second in range(1, 31):
        clock.now = float(second)
        progress.show(second * 1_000_000)
    progress.end()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "sealing 10.0 MB of 100.0 MB (10%), 1 MB/s, 1:30 left"


def test_a_terminal_gets_one_line_that_moves_and_goes(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress("sealing", 100, stream=stream)
    clock.now = 0.1
    progress.show(1)
    assert stream.getvalue() == ""
    clock.now = 0.3
    progress.show(2)
    assert stream.getvalue().startswith("\rsealing 2 bytes of 100 bytes")
    progress.end()
    assert stream.getvalue().endswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()
