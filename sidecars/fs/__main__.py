"""`python -m sidecars.fs`: mount one volume, serve it, unmount it at SIGTERM.

Credentials: `volume` (config.py) and `model-key`, 32 raw bytes. A failure is one line on stderr and the exit code of
its class. Killed and started again by a service manager that keeps descriptors, it goes on with the mount it had.
SIGHUP gives back the memory of every file that nobody has open, and of the others when they are closed.
"""

import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from sidecars.fs.config import MAX_CREDENTIAL, VolumeConfig
from sidecars.fs.opening import open_volume
from sidecars.fs.serving import serve
from sidecars.fs.workers.kept import Left
from sidecars.fs.workers.loop import Loop
from sidecars.fs.workers.process import keep_one_capability, make_undumpable
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.credentials import read_credential, read_secret
from strongroom.host.notify import notify, status, watchdog_interval
from strongroom.sealed.keys import KEY_SIZE

_STOP: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_CAP_SYS_ADMIN: Final = 21
_LOOK: Final = 1.0  # seconds between looks at what is served
_PATIENCE: Final = 30.0  # seconds a request may take before the status says so


class Alive(Protocol):
    @property
    def alive(self) -> bool: ...
    @property
    def longest_wait(self) -> float: ...


class Served(Alive, Protocol):
    """What is mounted and answered."""

    @property
    def sentence(self) -> str: ...
    def look(self) -> None: ...
    def give_back(self) -> None: ...


class Passing(Protocol):
    """What fails for a time."""

    @property
    def sentence(self) -> str: ...
    def look(self) -> None: ...


class Failures:
    """Sentences about what must not happen: for the journal at once, for the status as soon as the loop turns."""

    def __init__(self) -> None:
        self._untold: list[str] = []
        self.latest = ""

    def __call__(self, sentence: str) -> None:
        _say(sentence)
        self._untold.append(sentence)
        self.latest = " ".join(sentence.split())

    def take(self) -> list[str]:
        untold, self._untold = self._untold, []
        return untold


def main() -> int:
    left = Left({})
    try:
        left = Left.find()
        make_undumpable()
        loop = Loop()
        failures = Failures()
        config = VolumeConfig.parse(read_credential("volume", max_bytes=MAX_CREDENTIAL))
        with _served(config, left, loop, failures) as served:
            notify(f"READY=1\nSTATUS={failures.latest or served.sentence}")
            _watch(served, loop, failures)
            notify("STOPPING=1")
    except StrongroomError as error:
        return _failed(error, left)
    except OSError as error:
        reason = f"{error.filename or 'kernel'}: {(error.strerror or 'failed').lower()}"
        return _failed(MachineError(reason), left)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # whoever comes next may do better
        return _failed(MachineError(f"daemon: unexpected {error!r}"), left)
    return 0


def _failed(error: StrongroomError, left: Left) -> int:
    if not isinstance(error, MachineError):  # nobody will come to serve what was left
        try:
            left.give_up()
        except MachineError as hidden:
            _say(str(hidden))
            left.let_go()
    _say(str(error))
    status(str(error))
    return error.exit_code


def _say(sentence: str) -> None:
    print(f"strongroom-fs: {' '.join(sentence.split())}", file=sys.stderr, flush=True)


@contextmanager
def _served(config: VolumeConfig, left: Left, loop: Loop, failures: Failures) -> Iterator[Served]:
    loop.catch({*_STOP, signal.SIGHUP})  # a stop must unmount
    _allow_open_files()
    with ExitStack() as stack:
        if config.writable:
            yield _serve_live(config, left, failures, stack)
        else:
            yield _serve_still(config, left, loop, failures, stack)


def _serve_live(config: VolumeConfig, left: Left, failures: Failures, stack: ExitStack) -> Served:
    from sidecars.fs.live import serve as serve_live  # noqa: PLC0415  # most volumes are never written to

    left.give_up()  # what is written to lives in one process, and ends with it
    with read_secret("model-key", length=KEY_SIZE) as key:
        server = stack.enter_context(serve_live(config, key, failures, _say))
    return Live(server, server.troubles, config)


def _serve_still(
    config: VolumeConfig, left: Left, loop: Loop, failures: Failures, stack: ExitStack
) -> Served:
    before = _descriptors()
    keep_one_capability(
        _CAP_SYS_ADMIN
    )  # as the unit does: what workers could not open is found when we mount
    with read_secret("model-key", length=KEY_SIZE) as key:
        opened = stack.enter_context(open_volume(config, key.view()))
    store = frozenset(_descriptors() - before)
    return stack.enter_context(serve(config, opened, store, left, loop, failures))


@dataclass(frozen=True, slots=True)
class Live:
    """A volume that is written to, which has a server of its own."""

    server: Alive
    troubles: Passing
    config: VolumeConfig

    @property
    def alive(self) -> bool:
        return self.server.alive

    @property
    def longest_wait(self) -> float:
        return self.server.longest_wait

    @property
    def sentence(self) -> str:
        """How it is: with what the store refuses while it does."""
        said = f"serving {self.config.source.name}, writable"
        return f"{said}; {troubles}" if (troubles := self.troubles.sentence) else said

    def look(self) -> None:
        self.troubles.look()

    def give_back(self) -> None:
        """Nothing is kept."""


def _watch(served: Served, loop: Loop, failures: Failures) -> None:
    """Return at a stop signal. A failure stays in the status: nothing after it says "serving" again."""
    ping, sound, said = watchdog_interval(), True, served.sentence
    step = min(_LOOK, (ping or _LOOK) / 2)
    looked = pinged = time.monotonic()
    while served.alive:
        loop.step(step)
        if loop.caught & _STOP:
            return
        for sentence in failures.take():
            sound = False
            status(sentence)
        if signal.SIGHUP in loop.caught:
            loop.caught.discard(signal.SIGHUP)
            served.give_back()
        now = time.monotonic()
        if ping is not None and now >= pinged + ping / 2:
            pinged = now
            notify("WATCHDOG=1")
        if now < looked + _LOOK:
            continue
        looked = now
        served.look()
        if sound and (sentence := _sentence(served)) != said:
            said = sentence
            status(said)
    raise MachineError("mount: no longer served, want it until we are stopped")


def _sentence(served: Served) -> str:
    slow = f"; the store has not answered for {_PATIENCE:g} s" if served.longest_wait > _PATIENCE else ""
    return served.sentence + slow


def _descriptors() -> set[int]:
    """Every open descriptor of ours, but the one it takes to look."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            fcntl.fcntl(int(name), fcntl.F_GETFD)
            found.add(int(name))
    return found


def _allow_open_files() -> None:
    """Objects stay open as far as that goes: take all the descriptors the unit may have, where it may take them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # a system call filter: then fewer stay open
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
