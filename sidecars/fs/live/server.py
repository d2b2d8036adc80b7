"""The loop on /dev/fuse of a file system that can change: several threads of one process, one dispatcher.

One process, because two who write one file must know of each other. One thread leads: it alone takes requests, and does
what takes no time itself, so that small requests cost neither a change of threads nor a wait for the interpreter lock.
Before a request that takes long it hands the lead over; where the store is slow, before every request; and it loses the
lead when it is held up after all.
"""

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread, current_thread
from typing import Final

from sidecars.fs.device import clone, receive
from sidecars.fs.live.dispatcher import Dispatcher
from sidecars.fs.live.troubles import Troubles
from sidecars.fs.protocol.frames import Opcode, pack_header, pack_refusal
from sidecars.fs.protocol.writing import MAX_TRANSFER, REQUEST_BUFFER, Call
from strongroom.errors import MachineError, ProtocolError, StrongroomError

THREADS: Final = 3  # one leads, two move what is large
MOST_THREADS: Final = 16  # while the store keeps those waiting
_TURN: Final = 0.05  # seconds between looks at whether it does
_HELD_UP: Final = 0.01  # seconds after which the lead goes to another thread
_SLOW: Final = 0.0003  # seconds that small requests take on average, where the store is slow
_LARGE: Final = 64 * 1024  # bytes of a transfer that is not done in no time
_SMALL: Final = 4096  # bytes that are copied behind their header: one buffer costs the kernel less than two
_SLOW_KINDS: Final = frozenset({Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.FALLOCATE, Opcode.FLUSH})
_GONE: Final = {errno.ENOENT, errno.ENODEV}  # nobody waits for this reply any more


class Server:
    """Serves one mounted device until it is unmounted.

    `report` gets a sentence for each failure that is ours. It is called by the thread that a caller waits for, so it
    must not block. What the store could not do is in `troubles` instead.
    """

    def __init__(
        self, device: int, dispatcher: Dispatcher, report: Callable[[str], None], troubles: Troubles
    ) -> None:
        self.troubles: Final = troubles
        self._device = device
        self._dispatcher = dispatcher
        self._report = report
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._least = THREADS
        self._turn = Lock()  # held by the leader, or on its behalf
        self._leader: Thread | None = None
        self._busy_since = 0.0  # when the leader took up what it does itself; 0 while it waits
        self._pace = 0.0  # seconds that a small request takes, on average
        self._ended = Event()
        self._begun: dict[int, float] = {}  # request -> monotonic time at which it was taken up

    def start(self, threads: int = THREADS) -> None:
        """Once the kernel was greeted. `threads` serve all the time, more while these wait for a slow store."""
        self._least = threads
        for _ in range(threads):
            self._add()
        Thread(target=self._watch, name="fuse-watch", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether every thread still serves: none has failed, and the mount is there."""
        return not self._ended.is_set() and all(thread.is_alive() for thread in list(self._threads))

    @property
    def longest_wait(self) -> float:
        """Seconds since the oldest request that still waits for its reply was taken up; 0 when none does."""
        begun = list(self._begun.values())  # a copy: the threads go on
        return time.monotonic() - min(begun) if begun else 0.0

    def join(self, timeout: float) -> None:
        """Wait for the threads after the unmount, at most `timeout` seconds each: a busy mount keeps them."""
        self._ended.set()
        for thread in list(self._threads):
            thread.join(timeout)

    def _add(self) -> None:
        device = clone(self._device)
        thread = Thread(target=self._serve, args=(device,), name=f"fuse-{len(self._threads)}", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Give the lead to another thread where who has it is held up, and see that there is another."""
        while not self._ended.wait(_TURN):
            if self.longest_wait > _HELD_UP:
                if 0 < self._busy_since < time.monotonic() - _HELD_UP:
                    self._hand_over(self._leader)
                if len(self._begun) >= len(self._threads) < MOST_THREADS:
                    with suppress(MachineError):  # no descriptor left: those that serve go on
                        self._add()

    def _serve(self, device: int) -> None:
        buffer = memoryview(bytearray(REQUEST_BUFFER))
        room = memoryview(bytearray(MAX_TRANSFER))
        me = current_thread()
        try:
            while not self._is_spare(me) and self._lead(me, device, buffer, room):
                pass
        finally:
            self._hand_over(me)
            os.close(device)

    def _lead(self, me: Thread, device: int, buffer: memoryview, room: memoryview) -> bool:
        """Take requests until the lead is lost; False once there is nothing to serve any more."""
        self._turn.acquire()
        self._leader = me
        while self._leader is me:  # or two lead for a moment, and nothing is lost by that
            if (frame := receive(device, buffer)) is None:
                self._ended.set()
                return False
            call = Call.parse(frame)
            begun = self._begun[call.unique] = time.monotonic()
            large = _is_large(call)
            if large or self._pace > _SLOW:
                self._hand_over(me)
            else:
                self._busy_since = begun
            self._answer(device, call, room)
            self._busy_since = 0.0
            del self._begun[call.unique]
            if not large:
                self._pace += (time.monotonic() - begun - self._pace) / 16
        return True

    def _hand_over(self, leader: Thread | None) -> None:
        """Let another thread take requests, if this one has been."""
        with self._lock:
            if leader is not None and self._leader is leader:
                self._leader = None
                self._turn.release()

    def _is_spare(self, me: Thread) -> bool:
        """Whether this thread, which has just become free, is one more than is needed."""
        if len(self._threads) <= self._least:
            return False
        with self._lock:
            spare = len(self._threads) - len(self._begun) > self._least
            if spare:
                self._threads.remove(me)
            return spare

    def _answer(self, device: int, call: Call, room: memoryview) -> None:
        try:
            payload = self._dispatcher.answer(call, room)
        except OSError as error:
            self.troubles.refused(error)
            self._send(device, call, pack_refusal(call.unique, error.errno or errno.EIO))
        except MachineError as error:
            self.troubles.met(str(error))
            self._send(device, call, pack_refusal(call.unique, errno.EIO))
        except StrongroomError as error:
            self._report(f"{error}; request {call.opcode} refused")
            self._send(device, call, pack_refusal(call.unique, errno.EIO))
        except Exception as error:  # noqa: BLE001 - a defect of ours fails one request, not everybody's
            self._report(f"fuse: request {call.opcode} failed, {type(error).__name__}")
            self._send(device, call, pack_refusal(call.unique, errno.EIO))
        else:
            if payload is not None:
                self._send(device, call, pack_header(call.unique, len(payload)), payload)

    def _send(
        self, device: int, call: Call, header: bytes, payload: bytes | memoryview | None = None
    ) -> None:
        """A reply, or a refusal, which is a header alone."""
        try:
            if payload is None or len(payload) <= _SMALL:
                os.write(device, header + payload if payload else header)
            else:
                os.writev(device, [header, payload])
        except OSError as error:
            if error.errno in _GONE:
                return
            if payload is None:
                raise MachineError(f"fuse: refusal of request {call.opcode} refused") from error
            self._report(
                f"fuse: reply to request {call.opcode} refused: {(error.strerror or 'failed').lower()}"
            )
            self._send(device, call, pack_refusal(call.unique, errno.EIO))


def _is_large(call: Call) -> bool:
    if call.opcode == Opcode.WRITE:
        return len(call.body) >= _LARGE
    if call.opcode == Opcode.READ:
        with suppress(ProtocolError):  # whoever answers it will say so
            return call.transfer().size >= _LARGE
    return call.opcode in _SLOW_KINDS
