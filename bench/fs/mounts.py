"""Mounts of the bench: start a daemon, wait for its mount, set how far the kernel reads ahead, take it down."""

import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bench.fs.daemon import Daemon
from strongroom.errors import MachineError
from strongroom.host.run import Argv, Child, run, spawn

PATIENCE: Final = 120.0  # seconds until a mount has to be there
KERNEL_READ_AHEAD: Final = 128  # KiB: of every FUSE mount, unless somebody changes it
RAISED_READ_AHEAD: Final = 8192  # KiB
_MOUNTS: Final = "/proc/self/mountinfo"
_CACHES: Final = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Mounted:
    """A directory to read; `since` is the monotonic time from which work ahead of the reader counts."""

    path: Path
    daemon: Daemon | None = None
    since: float | None = None


class Served(NamedTuple):
    """A mount that has just appeared, when that was (monotonic), and the daemon's first process."""

    mounted: Mounted
    appeared: float
    child: Child


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to the same files. `ready` gives it for one round: what stands already, or a fresh mount."""

    name: str
    ready: Callable[[], AbstractContextManager[Mounted]]
    read_ahead: int | None = None  # KiB, set before each round; None leaves what the daemon or kernel chose


def standing(name: str, mounted: Mounted, read_ahead: int | None = None) -> Subject:
    """A subject that stays mounted from round to round."""
    return Subject(name, lambda: nullcontext(mounted), read_ahead)


@contextmanager
def served(
    argv: Argv, point: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Served]:
    """The mount that `argv`, a daemon in the foreground, makes at `point`.

    On leaving, the daemon is stopped and what is still mounted is unmounted.

    Raises MachineError with the daemon's last words when it ends or does not mount.
    """
    point.mkdir(parents=True, exist_ok=True)
    log = point.with_name(f"{point.name}.log")
    try:
        with log.open("wb") as file, spawn(argv, env=env, cwd=cwd, stdout=file, stderr=file) as child:
            appeared = _wait(child, point, log)
            yield Served(Mounted(point, Daemon(child.pid)), appeared, child)
    finally:
        if is_mounted(point):
            run(["umount", "-l", point], check=False)


def is_mounted(point: Path) -> bool:
    """Read from the kernel's table: to ask the mount itself would give its daemon work."""
    wanted = str(point).replace(" ", "\\040")
    return any(line.split(" ", 5)[4] == wanted for line in Path(_MOUNTS).read_text().splitlines())


def set_read_ahead(point: Path, kib: int) -> None:
    device = point.stat().st_dev
    Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(f"{kib}\n")


def forget(path: Path) -> None:
    """Drop the page cache of one file, or of every file below a directory."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def drop_caches() -> None:
    """Drop every clean page, name and inode the machine has cached."""
    os.sync()
    _CACHES.write_text("3\n")


def _wait(child: Child, point: Path, log: Path) -> float:
    """The monotonic time at which the mount appeared: the kernel wakes whoever watches its table."""
    deadline = time.monotonic() + PATIENCE
    with Path(_MOUNTS).open("rb") as mounts:
        watch = select.poll()
        watch.register(mounts, select.POLLPRI | select.POLLERR)
        while not is_mounted(point):
            if child.status is not None or time.monotonic() > deadline:
                raise MachineError(f"{point.name}: not mounted: {last_line(log)}")
            watch.poll(200)
        return time.monotonic()


def last_line(log: Path) -> str:
    """What a process said last."""
    return (log.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]
