"""What the store refuses for a time: told while it lasts, and told again when it is over.

A full disk, a quota, a handle that went stale, an interrupted call: whoever asked was given the error, and the next
request may do well. So a status that says so goes back to what it was, and only the count of such errors remains.
"""

import errno
import os
import time
from collections.abc import Callable
from threading import Lock
from typing import Final

LASTING: Final = 60.0  # seconds without another one of its kind, after which it is over
MOST: Final = 16  # kinds at a time
# What a store answers for reasons of its own. The others are answers to what was asked.
OF_THE_STORE: Final = frozenset(
    {
        errno.EBADMSG, errno.ECOMM, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EDQUOT,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENETDOWN,
        errno.ENETUNREACH, errno.ENFILE, errno.ENODEV, errno.ENOLINK, errno.ENOMEM, errno.ENOSPC,
        errno.ENOTCONN, errno.EREMOTEIO, errno.EROFS, errno.ESHUTDOWN, errno.ESTALE, errno.ETIMEDOUT,
        errno.EUCLEAN,
    }
)  # fmt: skip


class Troubles:
    """For several threads. `say` is for the journal: a line when a kind begins, and one when it is over."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._lock: Final = Lock()
        self._lasting: dict[str, float] = {}  # kind -> when it was last met
        self.count = 0

    def refused(self, error: OSError) -> None:
        """An error that a caller is given; the store's own ones are noted."""
        if error.errno in OF_THE_STORE and not isinstance(error, UnverifiedError):
            self.met(os.strerror(error.errno).lower())

    def met(self, kind: str) -> None:
        with self._lock:
            self.count += 1
            begins = kind not in self._lasting and len(self._lasting) < MOST
            if begins or kind in self._lasting:
                self._lasting.pop(kind, None)  # the latest comes last
                self._lasting[kind] = self._clock()
        if begins:
            self._say(f"store: {kind}")

    def look(self) -> None:
        """Say what is over."""
        with self._lock:
            now = self._clock()
            over = [kind for kind, at in self._lasting.items() if now >= at + LASTING]
            for kind in over:
                del self._lasting[kind]
        for kind in over:
            self._say(f"store: no more {kind!r} for {LASTING:g} s")

    @property
    def sentence(self) -> str:
        """For the status; nothing while nothing was ever met."""
        with self._lock:
            latest, count = next(reversed(self._lasting), ""), self.count
        if not count:
            return ""
        times = f"the store failed {count} time{'s' * (count > 1)}"
        return f"{times}, just now: {latest}" if latest else times


class UnverifiedError(OSError):
    """EIO for what does not verify. Not the store's word but ours on what it gave, and never forgotten."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, os.strerror(errno.EIO))
