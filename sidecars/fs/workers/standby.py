"""Who answers while every worker waits for the store: the master, and only what takes no store.

One reader is enough to have all workers wait, for the kernel reads ahead in several requests. Names and attributes are
in memory all the same. A read that is taken up here stays where it is, and the kernel gives it out again (RESEND) when
there is a worker for it.
"""

from typing import Final, Protocol

from sidecars.fs import device as fuse
from sidecars.fs.protocol.frames import REQUEST_BUFFER, Request
from sidecars.fs.still.operations import HandedOver, Operations, Range, Refusal, Silence
from sidecars.fs.workers.loop import Loop


class Desk(Protocol):
    """Who answers what workers hand over: `device` is where the reply is written to."""

    def asked(self, device: int, unique: int, what: HandedOver) -> None: ...


class Standby:
    """Reads requests from `device` itself, which nobody else does, for as long as it is on duty."""

    def __init__(self, device: int, operations: Operations, desk: Desk | None, loop: Loop) -> None:
        self._device: Final = device
        self._operations: Final = operations
        self._desk: Final = desk
        self._loop: Final = loop
        self._buffer: Final = memoryview(bytearray(REQUEST_BUFFER))
        self._parked = False  # whether a read waits here
        self.on_duty = False

    def begin(self) -> None:
        if not self.on_duty:
            self.on_duty = True
            self._loop.watch(self._device, self._answer_one)

    def end(self) -> None:
        """A worker is free, or the mount is gone."""
        if not self.on_duty:
            return
        self.on_duty = False
        self._loop.forget(self._device)
        if self._parked:
            self._parked = False
            fuse.resend(self._device)

    def _answer_one(self) -> None:
        try:
            frame = fuse.receive_now(self._device, self._buffer)
        except OSError:  # unmounted, which the workers will see
            self._parked = False
            return self.end()
        if frame is None:
            return None
        request = Request.parse(frame)
        match self._operations.answer(request):
            case Silence():
                pass
            case Range():
                self._parked = True
            case Refusal(number):
                fuse.refuse(self._device, request.unique, number)
            case HandedOver() as what:
                if self._desk is not None:
                    self._desk.asked(self._device, request.unique, what)
            case payload:
                fuse.reply(self._device, request.unique, payload)
        return None
