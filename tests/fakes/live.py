"""Live volumes: a daemon for each, what a mount looks like from outside, and what the real program makes of it."""

import ctypes
import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import ROOT
from tests.fakes.gocryptfs import fsck, init
from tests.fakes.gocryptfs import mounted as really_mounted

FRONTS = ("raw", "portable")
SERVED = (("raw", "gocryptfs"), ("portable", "gocryptfs"), ("raw", "shared"))
LAZY = 2  # of umount2(2)
NOISE = "Ignoring invalid max threads value"  # of libfuse 3.14, about its own default


@dataclass
class Live:
    """One run of tests.fakes.live_daemon."""

    front: str
    kind: str
    store: Path
    mount: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        detach(self.mount)

    def stop(self) -> str:
        """Everything it said, after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=30)
        detach(self.mount)
        said = [*self.lines, *output.splitlines(keepends=True)]
        return "".join(line for line in said if NOISE not in line)


def detach(mount: Path) -> None:
    while ctypes.CDLL(None).umount2(os.fsencode(mount), LAZY) == 0:
        pass


def start(front: str, kind: str, store: Path, mount: Path, *, intents: Path | None = None) -> Live:
    mount.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.fakes.live_daemon", front, kind, str(store), str(mount)]
    command += [str(intents)] if intents else []
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    live = Live(front, kind, store, mount, process)
    assert process.stdout is not None
    while "ready\n" not in live.lines:
        live.lines.append(process.stdout.readline())
        if not live.lines[-1]:
            live.kill()
            raise AssertionError(live.lines)
    return live


@contextmanager
def running(
    front: str, kind: str, store: Path, mount: Path, *, intents: Path | None = None
) -> Iterator[Live]:
    live = start(front, kind, store, mount, intents=intents)
    try:
        yield live
    finally:
        if live.process.poll() is None:
            live.process.send_signal(signal.SIGTERM)
            try:
                live.process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                live.process.kill()
        live.process.wait()
        if live.process.stdout:
            live.process.stdout.close()
        detach(mount)


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree but times, blocks and inode numbers."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(os.fsencode(top)):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            what: object = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    what = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                what = os.readlink(path)
            size = status.st_size if not stat.S_ISDIR(status.st_mode) else 0
            links = status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0
            xattrs = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            found[os.fsdecode(os.path.relpath(path, os.fsencode(top)))] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                size,
                links,
                what,
                xattrs,
            )
    return found


def agrees(store: Path, expected: dict[str, tuple[object, ...]]) -> None:
    """The real gocryptfs finds nothing wrong, and reads the same."""
    checked = fsck(store)
    assert checked.status == 0, checked.stdout + checked.stderr
    with really_mounted(store, "-allow_other") as top:
        assert snapshot(top) == expected


def refused(number: int) -> AbstractContextManager[object]:
    """A call that ends in this error."""
    return pytest.raises(OSError, match=rf"^\[Errno {number}\]")


def drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rename(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


__all__ = [
    "FRONTS", "SERVED", "Live", "agrees", "detach", "drop", "init", "refused", "rename", "running", "snapshot", "start",
]  # fmt: skip
