"""Mirrors sidecars/fs/device.py, as far as it needs no kernel."""

import errno
import os
import struct

import pytest

from sidecars.fs import device
from sidecars.fs.device import Terms, answer_greeting
from sidecars.fs.protocol.frames import WANTED, InitFlag, Opcode
from strongroom.errors import MachineError, ProtocolError
from tests.fakes.fuse import request

ALL = 0xFFFFFFFF


def greeting(major: int, minor: int, flags: int = ALL, more: int = ALL) -> tuple[bytes, Terms]:
    body = struct.pack("=IIIII", major, minor, 1 << 17, flags, more) + bytes(44)
    return answer_greeting(request(Opcode.INIT, body), WANTED)


def test_greeting() -> None:
    reply, terms = greeting(7, 45)
    major, minor, ahead, flags, background, _, max_write, _, max_pages, _, more, depth = struct.unpack(
        "=IIIIHHIIHHII24x", reply
    )
    assert (major, ahead, background, max_write, max_pages, depth) == (7, 1 << 17, 64, 4096, 256, 1)
    assert minor <= 45
    assert flags | more << 32 == WANTED == terms.flags
    assert terms.passthrough
    assert terms.resend
    assert InitFlag.AUTO_INVAL_DATA not in terms.flags


def test_nothing_is_taken_that_was_not_offered() -> None:
    reply, terms = greeting(7, 31, flags=1)
    assert struct.unpack("=IIII", reply[:16])[3] == 1
    assert terms == Terms(31, InitFlag.ASYNC_READ)
    assert not terms.passthrough
    assert not terms.resend
    assert struct.unpack("=II", reply[32:40]) == (0, 0)


@pytest.mark.parametrize("version", [(7, 30), (6, 99), (8, 0)])
def test_other_kernels_are_refused(version: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError, match=f"kernel speaks {version[0]}.{version[1]}, want 7.31"):
        greeting(*version)


def test_the_first_request_is_the_greeting() -> None:
    with pytest.raises(ProtocolError, match="first request is 17, want 26"):
        answer_greeting(request(Opcode.STATFS), WANTED)


def test_reading_goes_on_until_the_mount_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [OSError(number, "x") for number in (errno.EINTR, errno.ENOENT, errno.EAGAIN)]

    def readv(_: int, buffers: list[memoryview]) -> int:
        if outcomes:
            raise outcomes.pop()
        buffers[0][:2] = b"ok"
        return 2

    monkeypatch.setattr(os, "readv", readv)
    received = device.receive(9, memoryview(bytearray(8)))
    assert received is not None
    assert received.tobytes() == b"ok"
    outcomes.append(OSError(errno.ENODEV, "x"))
    assert device.receive(9, memoryview(bytearray(8))) is None
    outcomes.append(OSError(errno.EBADF, "x"))
    with pytest.raises(OSError, match="x"):
        device.receive(9, memoryview(bytearray(8)))


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOENT, False), (errno.ENODEV, False), (errno.EINVAL, None)]
)
def test_a_reply_nobody_waits_for(monkeypatch: pytest.MonkeyPatch, number: int, told: bool | None) -> None:
    def writev(*_: object) -> int:
        raise OSError(number, "x")

    monkeypatch.setattr(os, "writev", writev)
    if told is None:
        with pytest.raises(OSError, match="x"):
            device.reply(9, 1, b"")
    else:
        assert device.reply(9, 1, b"") is told


def test_what_is_no_device_backs_nothing() -> None:
    with open(os.devnull, "rb") as file:
        with pytest.raises(MachineError, match="fuse: backing file refused"):
            device.open_backing(file.fileno(), file.fileno())
        device.close_backing(file.fileno(), 1)
