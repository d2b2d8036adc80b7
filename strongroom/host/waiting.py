"""Waiting for one descriptor, whatever its number: select(2) knows none above 1023."""

import math
import select


def wait_readable(descriptor: int, timeout: float) -> bool:
    """Whether there is something to read, or an end or an error to be seen, within `timeout` seconds."""
    return _wait(descriptor, select.POLLIN, timeout)


def wait_writable(descriptor: int, timeout: float) -> bool:
    """Whether a write would not wait, within `timeout` seconds."""
    return _wait(descriptor, select.POLLOUT, timeout)


def _wait(descriptor: int, events: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(math.ceil(timeout * 1000)))  # milliseconds
