"""/dev/fuse: open it, clone it, greet the kernel through it, move frames, ask for what takes a privilege."""

import errno
import fcntl
import os
import select
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct, pack
from typing import Final

from sidecars.fs.protocol.frames import (
    KERNEL_VERSION,
    MAX_WRITE,
    OLDEST_MINOR,
    REQUEST_BUFFER,
    InitFlag,
    Opcode,
    Request,
    pack_header,
    pack_init,
    pack_refusal,
)
from sidecars.fs.protocol.notices import pack_resend
from strongroom.errors import MachineError, ProtocolError

DEVICE: Final = "/dev/fuse"
_CLONE: Final = 0x8004E500  # FUSE_DEV_IOC_CLONE
_BACKING_OPEN: Final = 0x4010E501
_BACKING_CLOSE: Final = 0x4004E502
_BACKING_MAP: Final = Struct("=iIQ")
_AGAIN: Final = {errno.EINTR, errno.EAGAIN, errno.ENOENT}  # ENOENT: the request was taken back
_GONE: Final = {errno.ENOENT, errno.ENODEV}  # the request was taken back, or the file system was


@dataclass(frozen=True, slots=True)
class Terms:
    """What the kernel and we agreed on when the file system was mounted."""

    minor: int  # of the kernel's protocol
    flags: InitFlag  # of both, as far as both know them

    @property
    def passthrough(self) -> bool:
        return InitFlag.PASSTHROUGH in self.flags

    @property
    def resend(self) -> bool:
        return InitFlag.HAS_RESEND in self.flags


def open_device() -> int:
    """A fresh /dev/fuse, not yet mounted."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{DEVICE}: {(error.strerror or 'failed').lower()}") from error


def clone(device: int) -> int:
    """Another descriptor of a mounted device, with a queue of its own for requests that are being worked on.

    When its last copy is closed, those requests fail with ECONNABORTED.
    """
    fresh = open_device()
    fcntl.ioctl(fresh, _CLONE, pack("=I", device))
    return fresh


def is_connected(device: int) -> bool:
    """Whether the mount of this device is still there."""
    poll = select.poll()
    poll.register(device, 0)
    return not any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def greet(device: int, wanted: InitFlag, *, max_write: int = MAX_WRITE) -> Terms:
    """Agree with the kernel on what both speak. After the mount, before anybody else reads requests."""
    buffer = memoryview(bytearray(REQUEST_BUFFER))
    if (frame := receive(device, buffer)) is None:
        raise MachineError(f"{DEVICE}: unmounted before the kernel's greeting")
    request = Request.parse(frame)
    payload, terms = answer_greeting(request, wanted, max_write=max_write)
    os.writev(device, [pack_header(request.unique, len(payload)), payload])
    return terms


def answer_greeting(request: Request, wanted: InitFlag, *, max_write: int = MAX_WRITE) -> tuple[bytes, Terms]:
    """The reply to INIT and what it settles, or ProtocolError for a kernel we cannot work with."""
    if request.opcode != Opcode.INIT:
        raise ProtocolError(f"fuse: first request is {request.opcode}, want {Opcode.INIT}")
    major, minor, max_readahead, offered = request.init()
    if major != KERNEL_VERSION or minor < OLDEST_MINOR:
        raise ProtocolError(
            f"fuse: kernel speaks {major}.{minor}, want {KERNEL_VERSION}.{OLDEST_MINOR} or newer"
        )
    terms = Terms(minor, offered & wanted)
    depth = 1 if terms.passthrough else 0  # files of ours lie on no stacked file system
    reply = pack_init(
        max_readahead=max_readahead, flags=terms.flags, max_write=max_write, max_stack_depth=depth
    )
    return reply, terms


def receive(device: int, buffer: memoryview) -> memoryview | None:
    """The next request, or None when the file system is unmounted."""
    while True:
        try:
            return buffer[: os.readv(device, [buffer])]
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            if error.errno not in _AGAIN:
                raise


def receive_now(device: int, buffer: memoryview) -> memoryview | None:
    """The next request, or None when there is none at this moment. OSError when the file system is unmounted."""
    os.set_blocking(device, False)
    try:
        return buffer[: os.readv(device, [buffer])]
    except OSError as error:
        if error.errno not in _AGAIN:
            raise
        return None
    finally:
        os.set_blocking(device, True)


def reply(device: int, unique: int, payload: bytes | memoryview) -> bool:
    """Answer a request that was read from this descriptor; False when nobody waits for it any more.

    OSError when the kernel finds fault with the answer.
    """
    return _write(device, [pack_header(unique, len(payload)), payload])


def refuse(device: int, unique: int, number: int) -> None:
    _write(device, [pack_refusal(unique, number)])


def resend(device: int) -> None:
    """Have everything given out again that nobody has answered, by whichever descriptor it was read."""
    _write(device, [pack_resend()])


def open_backing(device: int, file: int) -> int:
    """The id under which the kernel reads `file` for us, in replies to OPEN. Takes CAP_SYS_ADMIN."""
    request = bytearray(_BACKING_MAP.pack(file, 0, 0))
    try:
        return int(fcntl.ioctl(device, _BACKING_OPEN, request))
    except OSError as error:
        raise MachineError(f"fuse: backing file refused: {(error.strerror or 'failed').lower()}") from error


def close_backing(device: int, backing: int) -> None:
    with suppress(OSError):  # the mount is gone, and every id with it
        fcntl.ioctl(device, _BACKING_CLOSE, pack("=I", backing))


def _write(device: int, frames: Sequence[bytes | memoryview]) -> bool:
    try:
        os.writev(device, frames)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False
    return True
