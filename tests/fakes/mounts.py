"""The real daemon on a real mount, run by a manager of ours, and what a reader sees of it."""

import ctypes
import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fakes.manager import Manager
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture

PAGE: Final = 4096
_DETACH: Final = 2


@dataclass
class Daemon(Manager):
    """One `python -m sidecars.fs` after the other, with the same credentials."""

    environment: dict[str, str] = field(default_factory=dict)

    @property
    def mount(self) -> Path:
        return self.at / "mount"

    @property
    def pid(self) -> int:
        return self.running.pid

    def again(self) -> None:
        """Start the next one, which is given what the last one left."""
        self.start(self.environment)
        self.wait_ready()

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def statuses(self) -> list[str]:
        """The sentences its status has shown."""
        lines = (line for notice in self.notices for line in notice.splitlines())
        return [line.removeprefix("STATUS=") for line in lines if line.startswith("STATUS=")]


def spawn(
    sealed: SealedFixture,
    at: Path,
    *,
    key: bytes = MODEL_KEY,
    environment: dict[str, str] | None = None,
    arguments: Sequence[str] = ("-m", "sidecars.fs"),
    **members: object,
) -> Daemon:
    """Start the daemon with its credentials under `at`. What `members` sets to None is left out."""
    credentials = at / "credentials"
    credentials.mkdir(exist_ok=True)
    volume = {
        "source": str(sealed.path),
        "mount": str(at / "mount"),
        "root": sealed.root.hex(),
        "epoch": sealed.epoch,
    } | members
    kept = {name: value for name, value in volume.items() if value is not None}
    (credentials / "volume").write_text(json.dumps(kept))
    (credentials / "model-key").write_bytes(key)
    daemon = Daemon(
        at, arguments, environment={"CREDENTIALS_DIRECTORY": str(credentials), **(environment or {})}
    )
    daemon.start(daemon.environment)
    return daemon


@contextmanager
def mounted(sealed: SealedFixture, at: Path, **members: object) -> Iterator[Daemon]:
    daemon = spawn(sealed, at, **members)  # type: ignore[arg-type]
    try:
        daemon.wait_ready()
        yield daemon
    finally:
        end(daemon)


def end(daemon: Daemon) -> None:
    daemon.close()
    unmount(daemon.mount)


def unmount(point: Path) -> None:
    """Whatever a failed test left."""
    while ctypes.CDLL(None).umount2(os.fsencode(point), _DETACH) == 0:
        pass


def refused(sealed: SealedFixture, at: Path, **members: object) -> tuple[int, str]:
    """Exit code and the one line of a daemon that does not come up."""
    daemon = spawn(sealed, at, **members)  # type: ignore[arg-type]
    try:
        status, stderr = daemon.wait()
        assert stderr.count("\n") == 1
        assert not os.path.ismount(daemon.mount)
        return status, stderr.strip()
    finally:
        end(daemon)


def read_pages(path: Path, size: int) -> dict[int, bytes | int | None]:
    """Every page of a file by its number: its bytes, or the errno that a reader got."""
    pages: dict[int, bytes | int | None] = {}
    fd = os.open(path, os.O_RDONLY)
    try:
        for number in range(-(-size // PAGE)):
            try:
                pages[number] = os.pread(fd, PAGE, number * PAGE)
            except OSError as error:
                pages[number] = error.errno
    finally:
        os.close(fd)
    return pages


def assert_only_refused(path: Path, content: bytes, chunks: set[int]) -> None:
    """Pages of `chunks` give EIO, and every other page its true content."""
    pages = read_pages(path, len(content))
    for number, page in pages.items():
        if number * PAGE // CHUNK in chunks:
            assert page == errno.EIO, f"page {number}"
        else:
            assert page == content[number * PAGE : (number + 1) * PAGE], f"page {number}"


def damage(path: Path, offset: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


def forget_pages(path: Path) -> None:
    """Have the kernel read the file anew."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
