"""Descriptors watched by one thread, and what to do about each. Signals arrive as one of them."""

import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Final

_READ: Final = selectors.EVENT_READ


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake: socket.socket | None = None
        self.caught: Final = set[int]()

    def watch(self, descriptor: int, act: Callable[[], object]) -> None:
        """Call `act` whenever there is something to read."""
        self._selector.register(descriptor, _READ, act)

    def forget(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def catch(self, signals: Iterable[signal.Signals]) -> None:
        """From here on these signals end a step, and stand in `caught` until somebody takes them out."""
        if self._wake is None:
            self._wake, wakes = socket.socketpair()
            self._wake.setblocking(False)
            wakes.setblocking(False)
            signal.set_wakeup_fd(wakes.detach())
            self.watch(self._wake.fileno(), self._woken)
        for one in signals:
            signal.signal(one, _nothing)

    def step(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for anything at all, and act on what has come."""
        for key, _ in self._selector.select(timeout):
            if (
                self._selector.get_map().get(key.fd) is key
            ):  # what came before may have ended it, or reused its number
                key.data()

    def close(self) -> None:
        self._selector.close()
        if self._wake is not None:
            if (wakes := signal.set_wakeup_fd(-1)) >= 0:
                os.close(wakes)
            self._wake.close()

    def _woken(self) -> None:
        if self._wake is not None:
            self.caught.update(self._wake.recv(256))


def _nothing(*_: object) -> None:
    """The number of the signal is in the socket already."""
