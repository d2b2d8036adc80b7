"""Finished objects on their way to the disk: many by one call, and of each a record when it is there.

fsync(2) of every object waits for the disk once for each. syncfs(2) waits once for all of them, so that a tree of many
small objects is sealed as fast as it is written.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from strongroom.host.folder import Folder
from strongroom.sealed.journal import Finished, Record

MOST: Final = 256  # objects that wait: what a cut costs at most, and as many descriptors
_BYTES: Final = 64 << 20  # or so many bytes; a larger object waits for nobody

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Waiting(NamedTuple):
    writer: int  # descriptor
    finished: Finished


class Settling:
    """The objects of one seal, for several threads. On leaving, all of them are on disk and recorded.

    When it is left with an error too, as far as the disk takes them; those it does not take are removed.
    """

    def __init__(self, objects: Folder, record: Callable[[Record], None]) -> None:
        self._objects: Final = objects
        self._record: Final = record
        self._lock: Final = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._settle(self._take())
        except Exception:
            if error is None:  # else what failed first is what is said
                raise

    def add(self, writer: int, finished: Finished) -> None:
        """An object that is written, and its descriptor, which is ours from here on."""
        one = _Waiting(writer, finished)
        if finished.file.size >= _BYTES:
            return self._settle([one])
        with self._lock:
            self._waiting.append(one)
            self._bytes += finished.file.size
            due = len(self._waiting) >= MOST or self._bytes >= _BYTES
        if due:
            self._settle(self._take())
        return None

    def _take(self) -> list[_Waiting]:
        with self._lock:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
        return waiting

    def _settle(self, waiting: list[_Waiting]) -> None:
        if not waiting:
            return
        try:
            if len(waiting) == 1:
                os.fsync(waiting[0].writer)
            else:
                sync_file_system(waiting[0].writer)
            while waiting:
                writer, finished = waiting[0]
                os.posix_fadvise(
                    writer, 0, 0, os.POSIX_FADV_DONTNEED
                )  # what is verified is read from the store
                self._record(finished)
                os.close(waiting.pop(0).writer)
        except BaseException:
            self._give_up(waiting)
            raise

    def _give_up(self, waiting: list[_Waiting]) -> None:
        for writer, finished in waiting:
            with suppress(OSError):  # what failed before is what is said
                self._objects.remove(finished.file.object_name)
            os.close(writer)


def sync_file_system(fd: int) -> None:
    """Have everything on disk that was written to the file system of `fd`. OSError when any of it failed."""
    if _libc.syncfs(fd):
        raise OSError(number := ctypes.get_errno(), os.strerror(number))
