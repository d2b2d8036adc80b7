"""Mirrors sidecars/fs/workers/loop.py."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from sidecars.fs.workers.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_what_can_be_read_is_acted_on(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    heard: list[bytes] = []
    loop.watch(pair[0].fileno(), lambda: heard.append(pair[0].recv(9)))
    loop.step(0)
    assert heard == []
    pair[1].send(b"x")
    loop.step(1)
    assert heard == [b"x"]
    loop.forget(pair[0].fileno())
    pair[1].send(b"y")
    loop.step(0)
    assert heard == [b"x"]


def test_what_was_forgotten_in_the_same_step_is_not_called(loop: Loop) -> None:
    """Two have something to say; whoever is first sends the other away and puts a third in its place."""
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def act(number: int) -> None:
        called.append(number)
        pairs[number][0].recv(9)
        other = pairs[1 - number][0]
        loop.forget(other.fileno())
        loop.watch(other.fileno(), lambda: called.append(9))

    for number, (here, there) in enumerate(pairs):
        loop.watch(here.fileno(), lambda number=number: act(number))  # type: ignore[misc]
        there.send(b"x")
    loop.step(1)
    assert len(called) == 1
    for here, there in pairs:
        here.close()
        there.close()


def test_a_signal_ends_a_step(loop: Loop) -> None:
    kept = signal.getsignal(signal.SIGHUP)
    try:
        loop.catch([signal.SIGHUP])
        os.kill(os.getpid(), signal.SIGHUP)
        loop.step(10)
        assert loop.caught == {signal.SIGHUP}
    finally:
        signal.signal(signal.SIGHUP, kept)
