"""`python -m tests.exercise_fs --ops 1000000 --seed 1`: random operations on a mounted volume and on a plain directory.

Both must answer alike, in value or in errno, and hold the same at the end of each round. A round is ROUND operations
from the seed and its own number, in directories of its own, so that a run can be taken up at any round with --from.
Each round ends with a look at everything; every tenth through a new daemon, and by the real gocryptfs.

The portable front end is spared two things that libfuse does in a way of its own: it keeps a file that is removed while
open under another name until it is closed, and two names of one file are two files to the kernel's cache.
"""

import argparse
import ctypes
import errno
import mmap
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from tests.fakes.gocryptfs import fsck, init
from tests.fakes.live import Live, running, snapshot

ROUND: Final = 2000  # operations
_OPEN_FILES: Final = 8
_SIZES: Final = (1, 7, 100, 4095, 4096, 4097, 5000, 8192, 12288, 20000, 65536, 131072)
_NAMES: Final = ("a", "b", "c", "data.bin", "ünï", "n" * 180, "m" * 255)
_FALLOCATE: Final = (0, 1, 3, 16, 17)
_libc = ctypes.CDLL(None, use_errno=True)
Side: TypeAlias = tuple[str, list[int]]  # a directory, and what is open in it


class Different(Exception):  # noqa: N818
    """The two did not answer alike."""


class Round:
    """One round on both sides. `did` says what was done, for whoever has to find out why."""

    def __init__(self, seed: int, number: int, ours: Path, plain: Path, *, spare: bool = False) -> None:
        self.choice = Random(f"{seed}/{number}")
        self.where = f"seed {seed}, round {number}"
        self.sides: tuple[Side, Side] = ((str(ours), []), (str(plain), []))
        self.did: list[str] = []
        self.spare = spare
        self.actions: list[Callable[[], None]] = [
            *[self.write] * 14,
            *[self.read] * 12,
            *[self.open] * 7,
            *[self.close] * 4,
            *[self.truncate] * 5,
            *[self.map] * 4,
            *[self.allocate] * 4,
            *[self.rename] * 4,
            *[self.unlink] * 3,
            *[self.mkdir] * 2,
            *[self.look] * 5,
            self.append,
            self.copy,
            self.rmdir,
            self.symlink,
            self.link,
            self.list,
            self.chmod,
            self.utime,
            self.sync,
            self.setxattr,
            self.getxattr,
            self.removexattr,
        ]

    def run(self, operations: int) -> None:
        for path in ("/a", "/b", "/a/b"):
            self.both(f"mkdir {path}", lambda top, _, path=path: os.mkdir(top + path))  # type: ignore[misc]
        while len(self.did) < operations:
            self.choice.choice(self.actions)()
        for _, files in self.sides:
            while files:
                os.close(files.pop())

    def both(self, name: str, act: Callable[[str, list[int]], object]) -> None:
        self.did.append(name)
        ours, plain = (self.outcome(act, *side) for side in self.sides)
        if ours != plain:
            raise Different(
                f"{self.where}, operation {len(self.did)}: {name}: ours {ours!r:.200}, want {plain!r:.200}"
            )

    @staticmethod
    def outcome(act: Callable[[str, list[int]], object], top: str, files: list[int]) -> object:
        try:
            return act(top, files)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, error.errno)

    # Choices

    def path(self) -> str:
        depth = self.choice.choice((1, 1, 1, 2, 2, 3))
        return "".join(f"/{self.choice.choice(_NAMES)}" for _ in range(depth))

    def offset(self) -> int:
        choice = self.choice
        near = choice.choice(_SIZES) * choice.choice((0, 1, 1, 2, 3)) + choice.choice((0, 0, 0, -1, 1, 17))
        return max(0, near if choice.random() < 0.98 else choice.randrange(1 << 23))

    def size(self) -> int:
        return self.choice.choice(_SIZES)

    def data(self) -> bytes:
        return self.choice.randbytes(16) * (self.size() // 16) + self.choice.randbytes(
            self.choice.randrange(1, 17)
        )

    def file(self) -> int | None:
        files = self.sides[0][1]
        return self.choice.randrange(len(files)) if files else None

    # Open files

    def open(self) -> None:
        path, choice = self.path(), self.choice
        flags = choice.choice((os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY))
        for flag, often in ((os.O_CREAT, 0.8), (os.O_TRUNC, 0.15), (os.O_EXCL, 0.1), (os.O_APPEND, 0.1)):
            flags |= flag if choice.random() < often else 0
        if flags & os.O_EXCL and not flags & os.O_CREAT:
            flags &= ~os.O_EXCL
        if len(self.sides[0][1]) >= _OPEN_FILES:
            self.close()

        def act(top: str, files: list[int]) -> object:
            fd = os.open(top + path, flags, 0o640)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                return "directory"
            files.append(fd)
            return "opened"

        self.both(f"open {path} {flags:o}", act)

    def close(self) -> None:
        if (which := self.file()) is not None:
            self.both(f"close {which}", lambda _, files: os.close(files.pop(which)))

    def read(self) -> None:
        if (which := self.file()) is not None:
            offset, size = self.offset(), self.size()
            self.both(f"read {which} {offset} {size}", lambda _, files: os.pread(files[which], size, offset))

    def write(self) -> None:
        if (which := self.file()) is not None:
            offset, data = self.offset(), self.data()
            name = f"write {which} {offset} {len(data)}"
            self.both(name, lambda _, files: os.pwrite(files[which], data, offset))

    def append(self) -> None:
        path, data = self.path(), self.data()

        def act(top: str, _: list[int]) -> object:
            fd = os.open(top + path, os.O_WRONLY | os.O_APPEND)
            try:
                return os.write(fd, data)
            finally:
                os.close(fd)

        self.both(f"append {path} {len(data)}", act)

    def truncate(self) -> None:
        which, path, length = self.file(), self.path(), self.offset()
        if which is not None and self.choice.random() < 0.7:
            self.both(f"ftruncate {which} {length}", lambda _, files: os.ftruncate(files[which], length))
        else:
            self.both(f"truncate {path} {length}", lambda top, _: os.truncate(top + path, length))

    def allocate(self) -> None:
        if (which := self.file()) is not None:
            mode, offset, size = self.choice.choice(_FALLOCATE), self.offset() % (1 << 21), self.size()

            def act(_: str, files: list[int]) -> object:
                if files is self.sides[1][1] and mode & 16:  # a plain directory in memory cannot zero a range
                    _fallocate(files[which], 3, offset, size)
                    if mode == 16 and offset + size > os.fstat(files[which]).st_size:
                        os.ftruncate(files[which], offset + size)
                else:
                    _fallocate(files[which], mode, offset, size)
                return os.fstat(files[which]).st_size

            self.both(f"fallocate {which} {mode} {offset} {size}", act)

    def map(self) -> None:
        """Write through a shared map, inside the file; sometimes without saying when it is to be stored."""
        if (which := self.file()) is None:
            return
        at, data, flush = self.choice.random(), self.data(), self.choice.random() < 0.5

        def act(_: str, files: list[int]) -> object:
            size = min(os.fstat(files[which]).st_size, 1 << 24)
            if not size:
                return "empty"
            offset = int(at * size)
            with mmap.mmap(files[which], size) as shared:
                before = shared[offset : offset + len(data)]
                shared[offset : offset + len(data)] = data[: len(before)]
                if flush:
                    shared.flush()
                return before

        self.both(f"map {which} {at:.3f} {len(data)}", act)

    def copy(self) -> None:
        source, target = self.file(), self.file()
        if source is None or target is None or source == target:
            return
        start, to, size = self.offset() % (1 << 21), self.offset() % (1 << 21), self.size()

        def act(_: str, files: list[int]) -> object:
            if os.path.sameopenfile(files[source], files[target]):
                return "same"
            done = 0
            while done < size:
                got = os.copy_file_range(files[source], files[target], size - done, start + done, to + done)
                if not got:
                    break
                done += got
            return done

        self.both(f"copy {source} {start} {target} {to} {size}", act)

    def sync(self) -> None:
        if (which := self.file()) is not None:
            self.both(f"fsync {which}", lambda _, files: os.fsync(files[which]))

    # Names

    def look(self) -> None:
        path, which = self.path(), self.file()
        if which is not None and self.choice.random() < 0.4:
            self.both(f"fstat {which}", lambda _, files: _looks(os.fstat(files[which])))
        else:
            self.both(f"stat {path}", lambda top, _: _looks(os.lstat(top + path)))

    def list(self) -> None:
        path = self.path().rpartition("/")[0]
        self.both(f"list {path}", lambda top, _: sorted(os.listdir(top + path)))

    def mkdir(self) -> None:
        path = self.path()
        self.both(f"mkdir {path}", lambda top, _: os.mkdir(top + path))

    def settle(self) -> None:
        while self.spare and self.sides[0][1]:
            self.close()

    def rmdir(self) -> None:
        path = self.path()
        self.both(f"rmdir {path}", lambda top, _: os.rmdir(top + path))

    def unlink(self) -> None:
        path = self.path()
        self.settle()
        self.both(f"unlink {path}", lambda top, _: os.unlink(top + path))

    def rename(self) -> None:
        old, new, flags = self.path(), self.path(), self.choice.choice((0, 0, 0, 1, 2))
        self.settle()

        def act(top: str, _: list[int]) -> object:
            if _libc.renameat2(-100, os.fsencode(top + old), -100, os.fsencode(top + new), flags):
                raise OSError(ctypes.get_errno(), "")
            return "renamed"

        self.both(f"rename {old} {new} {flags}", act)

    def symlink(self) -> None:
        path, target = self.path(), self.path()[1:]
        self.both(f"symlink {path} {target}", lambda top, _: os.symlink(target, top + path))
        self.both(f"readlink {path}", lambda top, _: os.readlink(top + path))

    def link(self) -> None:
        old, new = self.path(), self.path()
        if self.spare:
            return
        self.both(f"link {old} {new}", lambda top, _: os.link(top + old, top + new, follow_symlinks=False))

    # Attributes

    def chmod(self) -> None:
        path, mode = self.path(), self.choice.choice((0o600, 0o644, 0o755, 0o444, 0o4755))
        self.both(f"chmod {path} {mode:o}", lambda top, _: os.chmod(top + path, mode))

    def utime(self) -> None:
        path, when = self.path(), self.choice.randrange(1 << 60)

        def act(top: str, _: list[int]) -> object:
            os.utime(top + path, ns=(when, when // 2), follow_symlinks=False)
            return os.lstat(top + path).st_mtime_ns

        self.both(f"utime {path} {when}", act)

    def setxattr(self) -> None:
        path, name, value = self.path(), self.choice.choice(("user.a", "user.b")), self.data()[:300]
        self.both(f"setxattr {path} {name}", lambda top, _: os.setxattr(top + path, name, value))

    def getxattr(self) -> None:
        path, name = self.path(), self.choice.choice(("user.a", "user.b"))
        self.both(f"getxattr {path} {name}", lambda top, _: os.getxattr(top + path, name))
        self.both(f"listxattr {path}", lambda top, _: sorted(os.listxattr(top + path)))

    def removexattr(self) -> None:
        path, name = self.path(), self.choice.choice(("user.a", "user.b"))
        self.both(f"removexattr {path} {name}", lambda top, _: os.removexattr(top + path, name))


def _fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)):
        raise OSError(ctypes.get_errno(), "")


def _looks(status: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode,)
    return status.st_mode, status.st_nlink, status.st_size, status.st_uid, status.st_gid


class Exercise:
    """A volume and a plain directory below `base`, for as many rounds as are asked for."""

    def __init__(self, base: Path, front: str, kind: str = "gocryptfs") -> None:
        self.base, self.front, self.kind = base, front, kind
        self.store, self.mount, self.plain = base / "store", base / "live", base / "plain"
        self.plain.mkdir()
        if kind == "gocryptfs":
            init(self.store)
        else:
            self.store.mkdir()

    def run(self, *, operations: int, seed: int, first: int = 0, say: Callable[[str], None] = print) -> int:
        """Operations done. Raises Different."""
        done, number, began = 0, first, time.monotonic()
        while done < operations:
            with running(self.front, self.kind, self.store, self.mount) as live:
                for _ in range(10):
                    done += self.round(seed, number, min(ROUND, operations - done), live)
                    number += 1
                    if done >= operations:
                        break
                expected = snapshot(self.mount)
                if said := live.stop().replace("ready\n", ""):
                    raise Different(f"the daemon said: {said}")
            self.check(expected)
            rate = done / (time.monotonic() - began)
            say(
                f"{done} operations without difference, {rate:.0f}/s; go on with --seed {seed} --from {number}"
            )
        return done

    def round(self, seed: int, number: int, count: int, live: Live) -> int:
        ours, plain = live.mount / f"r{number}", self.plain / f"r{number}"
        for side in (ours, plain):
            side.mkdir()
        this = Round(seed, number, ours, plain, spare=self.front == "portable")
        try:
            this.run(count)
            done = len(this.did)
            if (left := snapshot(ours)) != (want := snapshot(plain)):
                name = next(name for name in {**left, **want} if left.get(name) != want.get(name))
                raise Different(f"{this.where}: {name!r}: ours {left.get(name)}, want {want.get(name)}")
        except Different:
            (self.base / "did").write_text("\n".join(this.did) + "\n")
            raise
        if number % 10 != 9:  # what the tenth leaves is looked at by others
            for side in (ours, plain):
                shutil.rmtree(side)
        return done

    def check(self, expected: dict[str, tuple[object, ...]]) -> None:
        """A new daemon reads the same, and the real program finds nothing wrong."""
        if self.kind == "gocryptfs" and (found := fsck(self.store)).status:
            raise Different(f"gocryptfs -fsck: {found.stdout.decode()}{found.stderr.decode()}")
        with running(self.front, self.kind, self.store, self.mount):
            if snapshot(self.mount) != expected:
                raise Different("a new daemon reads something else")
            for top in (self.mount, self.plain):
                for left in top.iterdir():
                    shutil.rmtree(left)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exercise_fs", description=__doc__)
    parser.add_argument("--ops", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first round")
    parser.add_argument("--front", choices=("raw", "portable"), default="raw")
    parser.add_argument("--kind", choices=("gocryptfs", "plain"), default="gocryptfs")
    parser.add_argument(
        "--base", type=Path, default=Path("/dev/shm"), help="where volume and directory are made"
    )
    args = parser.parse_args()
    os.umask(0o022)
    with ExitStack() as stack:
        base = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=args.base, ignore_cleanup_errors=True))
        )
        exercise = Exercise(base, args.front, args.kind)
        try:
            done = exercise.run(operations=args.ops, seed=args.seed, first=args.first)
        except Different as difference:
            print(f"difference: {difference}", file=sys.stderr)
            with suppress(OSError):
                print(
                    "last: " + "\n      ".join((base / "did").read_text().splitlines()[-12:]), file=sys.stderr
                )
            return 1
    print(f"{done} operations, seed {args.seed}: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
