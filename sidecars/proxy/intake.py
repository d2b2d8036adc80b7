"""Bodies on their way in: what they may take of memory together, from the first byte until the engine has the last.

A body counts for what came of it, never for what its head says will come: whoever announces much and sends nothing
takes nothing from anybody. Of those of whom nobody knows yet whose they are, there may be half of all.
"""

from collections import Counter
from types import TracebackType
from typing import Final, Self

from strongroom.host.door.refusal import too_busy

MOST: Final = 256 * 1024 * 1024  # bytes at once
MOST_UNKNOWN: Final = MOST // 2  # of them, of bodies whose sender has shown nothing
MOST_EACH: Final = MOST // 2  # of them, from one origin, which may be a gateway that all are behind
MOST_UNKNOWN_EACH: Final = MOST // 4
OPEN_EACH: Final = 256  # bodies that come from one origin at the same time
LEAST: Final = 64 * 1024  # bytes that a body counts for while it comes


class Intake:
    """One door's."""

    def __init__(self) -> None:
        self.total = self.unknown = 0  # bytes
        self.each = Counter[bytes]()
        self.unknown_each = Counter[bytes]()
        self.open_each = Counter[bytes]()

    def reading(self, origin: bytes, *, known: bool) -> "Reading":
        """To be held with `with` around reading a body and all that is done with it.

        `known` says that whoever sends it may ask something here.
        """
        return Reading(self, origin, known=known)

    def begin(self, origin: bytes) -> None:
        """A body did not come in one piece with its head."""
        if self.open_each[origin] >= OPEN_EACH:
            raise too_busy("too many requests are being read")
        self.open_each[origin] += 1

    def end(self, origin: bytes) -> None:
        _add(self.open_each, origin, -1)

    def require(self, origin: bytes, more: int, *, known: bool) -> None:
        full = self.total + more > MOST or self.each[origin] + more > MOST_EACH
        if not known:
            full = full or self.unknown + more > MOST_UNKNOWN
            full = full or self.unknown_each[origin] + more > MOST_UNKNOWN_EACH
        if full:
            raise too_busy("too much is being read")

    def count(self, origin: bytes, more: int, *, known: bool) -> None:
        self.total += more
        _add(self.each, origin, more)
        if not known:
            self.unknown += more
            _add(self.unknown_each, origin, more)


def _add(counter: Counter[bytes], origin: bytes, more: int) -> None:
    counter[origin] += more
    if not counter[origin]:
        del counter[origin]


class Reading:
    """One body, and what it counts for."""

    __slots__ = ("_body", "_counted", "_intake", "_known", "_open", "_origin")

    def __init__(self, intake: Intake, origin: bytes, *, known: bool) -> None:
        self._intake, self._origin, self._known = intake, origin, known
        self._counted = 0
        self._open = False
        self._body = b""

    def await_more(self, came: int) -> None:
        """So many bytes are here, and not all. Refusal 429 when there is no room."""
        if not self._open:
            self._intake.begin(self._origin)
            self._open = True
        self._grow(max(LEAST, came))

    def fill(self, body: bytes) -> None:
        """This is the whole of it, or what was inside of it. Refusal as above."""
        self._close()
        self._grow(len(body))
        self._count(len(body) - self._counted)
        self._body = body

    def admit(self) -> None:
        """It is known now whose it is."""
        counted = self._counted
        self._count(-counted)
        self._known = True
        self._count(counted)

    def take(self) -> bytes:
        """The body, once: what was read is not held here any longer, but counts on."""
        body, self._body = self._body, b""
        return body

    def release(self) -> None:
        """Nothing of it is here any more."""
        self._close()
        self._count(-self._counted)
        self._body = b""

    def _grow(self, size: int) -> None:
        if (more := size - self._counted) > 0:
            self._intake.require(self._origin, more, known=self._known)
            self._count(more)

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._intake.end(self._origin)

    def _count(self, more: int) -> None:
        if more:
            self._counted += more
            self._intake.count(self._origin, more, known=self._known)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
