"""A store that can hang: `python -m tests.fakes.stalling FOLDER MOUNT` shows FOLDER at MOUNT, read-only.

While FOLDER with ".hang" behind its name is there, reads of files wait. Everything else is answered.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
import mfusepy

_STEP: Final = 0.02  # seconds


class Stalling(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hang = folder.with_name(f"{folder.name}.hang")

    def _at(self, path: str) -> str:
        return f"{self._folder}{path}"

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path))
        names = ("st_mode", "st_size", "st_nlink", "st_uid", "st_gid")
        times = {f"st_{kind}time": getattr(status, f"st_{kind}time_ns") for kind in "amc"}
        return {name: getattr(status, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), os.O_RDONLY)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        while self._hang.exists():
            time.sleep(_STEP)
        return os.pread(fh, size, offset)


if __name__ == "__main__":
    options = {"foreground": True, "ro": True, "direct_io": True}
    mfusepy.FUSE(Stalling(Path(sys.argv[1])), sys.argv[2], **options)
