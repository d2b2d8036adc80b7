"""A forked process that can do little: no capability, no new one, no core file, no descriptor that is not its own.

It shares the keys in our memory, which is why it is forked and nothing is executed. It ends with us, however we end.
"""

import ctypes
import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.waiting import wait_readable

_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CRASHED: Final = 70  # exit status after an error of our own
LAST_CHANCE: Final = 2.0  # seconds for processes that were killed, or have nothing left to do

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Process:
    """A running child. The pidfd becomes readable when it ends."""

    pid: int
    pidfd: int

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self, patience: float = LAST_CHANCE) -> int | None:
        """Exit status, or minus the signal; None when it does not end: a store that hangs may hold it for ever.

        Closes the pidfd.
        """
        wait_readable(self.pidfd, patience)
        done, status = os.waitpid(self.pid, os.WNOHANG)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status) if done else None


def kill_all(processes: Sequence[Process]) -> bool:
    """All at once, with one wait for all of them; whether every one has ended. Each is still to be reaped."""
    for process in processes:
        process.kill()
    deadline = time.monotonic() + LAST_CHANCE
    ended = [wait_readable(one.pidfd, max(0.0, deadline - time.monotonic())) for one in processes]
    return all(ended)


def fork(run: Callable[[], None], *, keep: Collection[int]) -> Process:
    """A child that runs `run` with the descriptors of `keep` and the standard ones, then ends with status 0.

    An exception of `run` becomes one line on stderr and status 70. Call from the main thread: the child ends when
    the thread that forked it does.
    """
    gc.freeze()  # what is there now is not looked at again, so its pages stay shared
    _libc.malloc_trim(0)  # a manifest was many times its size while it was read: not for every child to hold
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = _CRASHED
        try:
            _confine(parent, keep)
            run()
            status = 0
        except BaseException as error:  # noqa: BLE001  # nothing of the parent's stack may run here
            print(f"strongroom-fs: process {os.getpid()}: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return Process(pid, os.pidfd_open(pid))


def make_undumpable() -> None:
    """No core file, and no reading of our memory by another process of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def keep_one_capability(number: int) -> None:
    """Drop every capability but one. Then nothing opens to us that would not open to a child of ours."""
    _set_capabilities(1 << number)


def _confine(parent: int, keep: Collection[int]) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked to be told
        os._exit(0)
    signal.set_wakeup_fd(-1)
    for stop in _STOPS:  # a stop is the master's: it unmounts, and then we have nothing to read
        signal.signal(stop, signal.SIG_IGN)
    _close_others(keep)
    _set_capabilities(0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def _close_others(keep: Collection[int]) -> None:
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = max(low, descriptor + 1)
    os.closerange(low, 1 << 20)


def _set_capabilities(kept: int) -> None:
    """`kept` is a bit for each of the first 32, as far as we have them."""
    if (
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        and ctypes.get_errno() != errno.EINVAL
    ):
        raise MachineError(f"prctl: {os.strerror(ctypes.get_errno()).lower()}")
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if kept and _libc.capget(header, sets):
        raise MachineError(f"capget: {os.strerror(ctypes.get_errno()).lower()}")
    effective, permitted = sets[0] & kept, sets[1] & kept
    if _libc.capset(header, (ctypes.c_uint32 * 6)(effective, permitted, 0, 0, 0, 0)):
        raise MachineError(f"capset: {os.strerror(ctypes.get_errno()).lower()}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise MachineError(f"prctl {option}: {os.strerror(ctypes.get_errno()).lower()}")
