"""Mirrors strongroom/host/waiting.py."""

import fcntl
import os

import pytest

from strongroom.host.waiting import wait_readable, wait_writable


@pytest.mark.parametrize("lowest", [3, 1100])
def test_whatever_the_number(lowest: int) -> None:
    read, write = os.pipe()
    high = [fcntl.fcntl(one, fcntl.F_DUPFD, lowest) for one in (read, write)]
    try:
        assert wait_writable(high[1], 0)
        assert not wait_readable(high[0], 0)
        assert not wait_readable(high[0], 0.01)
        os.write(write, b"x")
        assert wait_readable(high[0], 0)
        os.read(read, 1)
        for one in (write, high[1]):
            os.close(one)
        assert wait_readable(high[0], 0)  # its end
    finally:
        for one in (read, high[0]):
            os.close(one)
