"""Places at the engine, and lines of those who wait for some. No clock, no event loop.

One answer takes one place; a request for several takes as many, all at once. Every tenant has a line of its own, and
places that get free go to the lines in turn. So a tenant who asks for much waits for itself, and one who asks for
little is next. While any of several tenants has no place, one is kept: only who has none takes the last.

    invariant   nobody waits who could have places, but for those behind a request that needs more than are free:
                what gets free is saved for it, or it would wait for as long as others ask for less
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Waiting:
    name: str
    most: int  # places of this tenant
    wake: Callable[[], None]
    weight: int = 1  # places it needs
    placed: bool = False


class Places:
    """`most` of all together; `length` and `lengths` are how many may wait, of one tenant and of all `tenants`."""

    def __init__(self, *, most: int, length: int, lengths: int, tenants: int = 1) -> None:
        self._most, self._length, self._lengths, self._tenants = most, length, lengths, tenants
        self._inside = Counter[str]()
        self._lines = OrderedDict[str, deque[Waiting]]()  # the line that is asked first stands first
        self.taken = self.waiting = 0

    @property
    def largest(self) -> int:
        """The most places that one tenant may ever have."""
        return max(1, self._most - (self._tenants > 1))

    def inside(self, name: str) -> int:
        return self._inside[name]

    def take(self, name: str, most: int, weight: int = 1) -> bool:
        """Whether so many places were free. Those that were are given back by leave()."""
        if self._inside[name] + weight > most or name in self._lines:
            return False
        if not self._fit(name, weight) or (self._saved() and not self._first(name, weight)):
            return False
        self._enter(name, weight)
        return True

    def join(self, name: str, most: int, wake: Callable[[], None], weight: int = 1) -> Waiting | None:
        """The end of this tenant's line, or None where it is full. `wake` is called once there are places."""
        line = self._lines.get(name)
        if self.waiting >= self._lengths or (0 if line is None else len(line)) >= self._length:
            return None
        waiting = Waiting(name, most, wake, weight)
        self._lines.setdefault(name, deque()).append(waiting)
        self.waiting += 1
        return waiting

    def give_up(self, waiting: Waiting) -> None:
        """Leave the line; what was saved for it, or just given to it, goes to the next."""
        if waiting.placed:
            self.leave(waiting.name, waiting.weight)
        elif (line := self._lines.get(waiting.name)) is not None and waiting in line:
            line.remove(waiting)
            self._left_line(waiting.name, line)
            self._give()

    def leave(self, name: str, weight: int = 1) -> None:
        """Free places, and give them away."""
        self.taken -= weight
        self._inside[name] -= weight
        if not self._inside[name]:
            del self._inside[name]
        if self._lines:
            self._give()

    def _give(self) -> None:
        while (name := self._next()) is not None:
            line = self._lines[name]
            waiting = line.popleft()
            self._lines.move_to_end(name)
            self._left_line(name, line)
            self._enter(name, waiting.weight)
            waiting.placed = True
            waiting.wake()

    def _next(self) -> str | None:
        """Whose turn it is, if anybody's."""
        if self.taken >= self._most:
            return None
        saved = False  # for a line that stands before
        for name, line in self._lines.items():
            weight = line[0].weight
            if self._inside[name] + weight > line[0].most:
                continue
            if self._fit(name, weight) and (not saved or self._first(name, weight)):
                return name
            saved = True
        return None

    def _saved(self) -> bool:
        """Whether somebody waits for nothing but places to get free."""
        return any(self._inside[name] + line[0].weight <= line[0].most for name, line in self._lines.items())

    def _fit(self, name: str, weight: int) -> bool:
        served = len(self._inside) + (name not in self._inside)  # tenants that would have a place then
        kept = served < self._tenants and not self._first(name, weight)
        return self.taken + weight <= self._most - kept

    def _first(self, name: str, weight: int) -> bool:
        """Whether it is the one place of a tenant who has none."""
        return self._inside[name] + weight == 1

    def _enter(self, name: str, weight: int) -> None:
        self.taken += weight
        self._inside[name] += weight

    def _left_line(self, name: str, line: deque[Waiting]) -> None:
        self.waiting -= 1
        if not line:
            del self._lines[name]
