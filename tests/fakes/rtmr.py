"""TDX's registers as sysfs shows them: a FUSE tree in which writing extends.

`python -m tests.fakes.rtmr MOUNT` prints "ready" when mounted. Register 3 extends; a register file of another number
takes what it is given and does nothing, as a kernel without the operation would.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha384
from pathlib import Path

import mfusepy

from strongroom.host.run import PIPE, spawn
from tests import ROOT


class Registers:
    """Callbacks by libfuse's names."""

    use_ns = True

    def __init__(self) -> None:
        self._values = {f"/rtmr{n}:sha384": bytes([n]) * 48 for n in range(4)}

    def init(self, _path: str) -> None:
        print("ready", flush=True)

    def getattr(self, path: str, _number: int | None = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path not in self._values:
            raise OSError(errno.ENOENT, "")
        return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": 48}

    def readdir(self, _path: str, _number: int) -> list[str]:
        return [".", "..", *(path[1:] for path in self._values)]

    def open(self, path: str, _flags: int) -> int:
        return 1

    def read(self, path: str, size: int, offset: int, _number: int) -> bytes:
        return self._values[path][offset : offset + size]

    def write(self, path: str, value: bytes, offset: int, _number: int) -> int:
        if offset or len(value) != 48:
            raise OSError(errno.EINVAL, "")
        if path.startswith("/rtmr3"):
            self._values[path] = sha384(self._values[path] + value).digest()
        return len(value)


@contextmanager
def served(mount: Path) -> Iterator[Path]:
    argv: list[str | Path] = [sys.executable, "-m", "tests.fakes.rtmr", mount]
    mount.mkdir()
    with spawn(argv, cwd=ROOT, stdout=PIPE, env={"PYTHONDONTWRITEBYTECODE": "1"}) as child:
        assert child.line(60) == b"ready"
        yield mount


if __name__ == "__main__":
    mfusepy.FUSE(Registers(), os.fspath(sys.argv[1]), foreground=True, nothreads=True, direct_io=True)
