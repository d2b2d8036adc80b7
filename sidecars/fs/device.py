"""/dev/fuse: greet the kernel once, then answer it from several threads, each with its own clone of the device.

Every heavy call of a thread (read, preadv, decrypt, writev) releases the interpreter lock.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from struct import pack
from threading import Lock, Thread
from typing import Final

from sidecars.fs.operations import Operations, Range, Refusal, Silence, greet
from sidecars.fs.protocol.frames import REQUEST_BUFFER, Request, pack_header, pack_refusal
from sidecars.fs.reading import ChunkReader
from strongroom.errors import MachineError, ProtocolError, VerifyError

DEVICE: Final = "/dev/fuse"
_CLONE: Final = 0x8004E500  # FUSE_DEV_IOC_CLONE
_AGAIN: Final = {errno.EINTR, errno.EAGAIN, errno.ENOENT}  # ENOENT: the request was taken back
_MAX_REPORTED: Final = 1000

Frames = Sequence[bytes | memoryview]


def open_device() -> int:
    """A fresh /dev/fuse, not yet mounted."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{DEVICE}: {(error.strerror or 'failed').lower()}") from error


class Server:
    """Serves one mounted device until it is unmounted.

    `report` gets one sentence for each failure, once: an object and a chunk number, never content. It is called by the
    thread that a reader waits for, so it must not block.
    """

    def __init__(self, device: int, operations: Operations, report: Callable[[str], None]) -> None:
        self._device = device
        self._operations = operations
        self._report = report
        self._reported: set[str] = set()
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._begun: dict[int, float] = {}  # request -> monotonic time at which it was taken up

    def greet(self) -> None:
        """Agree with the kernel on what both speak. Before any thread is started."""
        buffer = memoryview(bytearray(REQUEST_BUFFER))
        frame = _receive(self._device, buffer)
        if frame is None:
            raise MachineError(f"{DEVICE}: unmounted before the kernel's greeting")
        request = Request.parse(frame)
        payload = greet(request)
        os.writev(self._device, [pack_header(request.unique, len(payload)), payload])

    def start(self, readers: Sequence[ChunkReader]) -> None:
        """One thread for each reader."""
        for number, reader in enumerate(readers):
            clone = open_device()
            fcntl.ioctl(clone, _CLONE, pack("=I", self._device))
            thread = Thread(target=self._serve, args=(clone, reader), name=f"fuse-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every thread still serves: none has failed, and the mount is there."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def longest_wait(self) -> float:
        """Seconds since the oldest request that still waits for its reply was taken up; 0 when none does."""
        begun = list(self._begun.values())  # a copy: the threads go on
        return time.monotonic() - min(begun) if begun else 0.0

    def join(self, timeout: float) -> None:
        """Wait for the threads after the unmount, at most `timeout` seconds each: a busy mount keeps them."""
        for thread in self._threads:
            thread.join(timeout)

    def _serve(self, device: int, reader: ChunkReader) -> None:
        buffer = memoryview(bytearray(REQUEST_BUFFER))
        try:
            while (frame := _receive(device, buffer)) is not None:
                request = Request.parse(frame)
                self._begun[request.unique] = time.monotonic()
                if frames := self._reply(request, reader):
                    self._send(device, request, frames)
                del self._begun[request.unique]
        finally:
            os.close(device)

    def _reply(self, request: Request, reader: ChunkReader) -> Frames:
        try:
            answer = self._operations.answer(request)
            payload = reader.read(answer) if isinstance(answer, Range) else answer
        except (VerifyError, MachineError, ProtocolError) as error:
            self._say(f"{error}; read refused")
            return [pack_refusal(request.unique, errno.EIO)]
        match payload:
            case Silence():
                return []
            case Refusal(number):
                return [pack_refusal(request.unique, number)]
            case _:
                return [pack_header(request.unique, len(payload)), payload]

    def _send(self, device: int, request: Request, frames: Frames) -> None:
        try:
            os.writev(device, frames)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # nobody waits for this reply any more
                return
            self._say(
                f"fuse: reply to request {request.opcode} refused: {(error.strerror or 'failed').lower()}"
            )
            os.write(device, pack_refusal(request.unique, errno.EIO))

    def _say(self, sentence: str) -> None:
        with self._lock:
            if sentence in self._reported or len(self._reported) >= _MAX_REPORTED:
                return
            self._reported.add(sentence)
        self._report(sentence)


def _receive(device: int, buffer: memoryview) -> memoryview | None:
    """The next request, or None when the file system is unmounted."""
    while True:
        try:
            return buffer[: os.readv(device, [buffer])]
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            if error.errno not in _AGAIN:
                raise
