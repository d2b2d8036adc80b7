"""What the processes behind a mount use: processor time and memory, of all of them together."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")  # seconds
_PROC: Final = Path("/proc")
_STAT: Final = Path("/proc/stat")


def machine_cpu() -> float:
    """Seconds all processors of the machine were busy so far, with whatever."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, _STAT.read_text().split(None, 9)[1:9])
    return (user + nice + system + irq + soft + steal) * _TICK


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. A page two processes share counts half for each in `proportional`, whole in `peaks`."""

    peaks: tuple[int, ...]  # most each process ever had resident, the one that was started first
    proportional: int  # of all processes, now

    @property
    def largest(self) -> int:
        return max(self.peaks, default=0)

    @property
    def worker(self) -> int:
        """The largest process that the first one has started; the first where it is alone."""
        return max(self.peaks[1:] or self.peaks, default=0)


class Daemon:
    """The process group of one daemon: those that ended count as long as a parent in the group waited for them."""

    def __init__(self, group: int) -> None:
        self.group = group

    def cpu(self) -> float:
        """Seconds of processor time so far, user and system."""
        total = 0.0
        for process, ended in self._members():
            with suppress(OSError):  # it ended meanwhile
                total += time.clock_gettime(~process << 3 | 2) + ended  # its clock: clock_getcpuclockid(3)
        return total

    def memory(self) -> Memory:
        peaks, proportional = [], 0
        for process in sorted((process for process, _ in self._members()), key=self._rank):
            with suppress(OSError):
                peaks.append(_kib(_PROC / str(process) / "status", "VmHWM:"))
                proportional += _kib(_PROC / str(process) / "smaps_rollup", "Pss:")
        return Memory(tuple(peaks), proportional)

    def _rank(self, process: int) -> tuple[bool, int]:
        return process != self.group, process

    def _members(self) -> Iterator[tuple[int, float]]:
        """Process ids, and the seconds of their ended children."""
        for name in os.listdir(_PROC):
            if not name.isdigit():
                continue
            with suppress(OSError):
                fields = (_PROC / name / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.group:
                    yield int(name), (int(fields[13]) + int(fields[14])) * _TICK


def _kib(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0
