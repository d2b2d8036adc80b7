"""Files kept open by one reader: as many as its process may well have, the one used longest ago closed first.

A volume may have more objects than a process may open files. So an object is opened when it is first read, by the
process that reads it, and only that far is a volume with a hundred thousand objects any different from one with ten.
"""

import errno
import resource
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from strongroom.errors import MachineError

_MOST: Final = 4096
_SHARE: Final = 4  # of the descriptors that a process may have, readers take one part in so many
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Closable(Protocol):
    def close(self) -> None: ...


F = TypeVar("F", bound=Closable)


class OpenFiles(Generic[F]):
    """The files of one reader by key. For one thread. `open` raises what get() shall raise."""

    def __init__(self, open: Callable[[int], F], *, most: int | None = None) -> None:
        self._open: Final = open
        self._most: Final = allowance() if most is None else most
        self._files: Final[OrderedDict[int, F]] = OrderedDict()

    def get(self, key: int) -> F:
        """The file, opened now unless it is open; good until the next get()."""
        if (file := self._files.get(key)) is None:
            file = self._fresh(key)
        else:
            self._files.move_to_end(key)
        return file

    def close(self) -> None:
        """Close all of them. They are opened again when they are wanted."""
        while self._files:
            self._close_oldest()

    def __del__(self) -> None:
        self.close()  # a reader that nobody has any more keeps no file

    def _fresh(self, key: int) -> F:
        while len(self._files) >= self._most:
            self._close_oldest()
        while True:
            try:
                file = self._files[key] = self._open(key)
                return file
            except MachineError as error:
                short = isinstance(error.__cause__, OSError) and error.__cause__.errno in _SHORT
                if not (short and self._files):
                    raise
            self._close_oldest()  # others of this process, or of the machine, have taken the rest

    def _close_oldest(self) -> None:
        self._files.popitem(last=False)[1].close()


def allowance() -> int:
    """How many files a reader may keep open in this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_MOST, soft // _SHARE)) if soft != resource.RLIM_INFINITY else _MOST
