"""A gate that requests which name something pass together, and a change of the tree passes alone.

Between the making of a path and its use no directory on it may be renamed: another one could have its name by then.
"""

from threading import Condition, Lock
from typing import Final


class Gate:
    """`with gate` among others, `with gate.alone` without any. Those who wait to be alone go first."""

    def __init__(self) -> None:
        self._lock: Final = Lock()
        self._changed: Final = Condition(self._lock)
        self._inside = 0
        self._alone = 0  # who is alone inside, or waits for it
        self._one: Final = Lock()  # of those
        self.alone: Final = _Alone(self)

    def __enter__(self) -> None:
        with self._lock:
            while self._alone:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._alone and not self._inside:
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait until everybody has left."""
        with self._lock:
            self._alone += 1
        self._one.acquire()
        with self._lock:
            while self._inside:
                self._changed.wait()

    def open(self) -> None:
        self._one.release()
        with self._lock:
            self._alone -= 1
            self._changed.notify_all()


class _Alone:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        self._gate.close()

    def __exit__(self, *_: object) -> None:
        self._gate.open()
