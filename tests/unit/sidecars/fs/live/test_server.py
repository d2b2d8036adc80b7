"""Mirrors live/server.py: how a reply gets to the device."""

import os

import pytest

from sidecars.fs.live.dispatcher import Dispatcher
from sidecars.fs.live.operations import Operations
from sidecars.fs.live.server import Server
from sidecars.fs.live.troubles import Troubles
from sidecars.fs.protocol.frames import pack_header, pack_refusal
from sidecars.fs.protocol.writing import Call
from strongroom.errors import MachineError

CALL = Call(15, 7, 1, memoryview(b""))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def server(said: list[str]) -> Server:
    return Server(-1, Dispatcher(Operations()), said.append, Troubles(said.append))


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 60_000])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_reply_of_any_size_is_one_frame(server: Server, size: int, kind: type) -> None:
    reading, writing = os.pipe()
    try:
        server._send(writing, CALL, pack_header(7, size), kind(b"x" * size))
        assert os.read(reading, 1 << 20) == pack_header(7, size) + b"x" * size
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("size", [0, 8, 8192])
def test_a_reply_that_is_refused_becomes_a_refusal(
    server: Server, said: list[str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def picky(_: int, frame: bytes) -> int:
        if len(frame) != len(pack_refusal(7, 5)) or not sent:
            sent.append(b"refused")
            raise OSError(22, "Invalid argument")
        sent.append(frame)
        return len(frame)

    monkeypatch.setattr(os, "write", picky)
    monkeypatch.setattr(os, "writev", lambda fd, frames: picky(fd, b"".join(frames)))
    server._send(-1, CALL, pack_header(7, size), bytes(size))
    assert sent == [b"refused", pack_refusal(7, 5)]
    assert said == ["fuse: reply to request 15 refused: invalid argument"]


def test_nobody_waits_for_it_any_more(server: Server, said: list[str]) -> None:
    gone = [2, 19]  # ENOENT, ENODEV
    for number in gone:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "write", _raising(number))
            server._send(-1, CALL, pack_header(7, 0), b"")
    assert said == []


def test_a_refusal_that_is_refused_ends_the_thread(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", _raising(22))
    with pytest.raises(MachineError, match="refusal of request 15 refused"):
        server._send(-1, CALL, pack_refusal(7, 5))


def _raising(number: int) -> object:
    def write(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return write
