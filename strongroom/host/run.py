"""The only door to subprocess: argv lists, no shell, stdin closed, a minimal environment.

`run` waits for a command that ends by itself. `spawn` is a context manager around one that does not: leaving
it terminates the child's whole process group, waits, and kills what is left. Both give every child a process
group of its own, so nothing it started outlives our interest in it, and a Ctrl-C reaches us first.

Secrets may travel by `input` (a pipe), never by argv or environment: both are shown to other processes of the
machine, and argv is shown in our errors.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from strongroom.errors import MachineError
from strongroom.host.waiting import wait_readable

Argv = Sequence[str | Path]

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
MAX_LINE: Final = 64 << 10  # bytes of a ready line
_TOLD: Final = 300  # characters of a child's last words that an error repeats


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. Output is empty when it was not captured."""

    argv: tuple[str, ...]
    status: int  # exit status, or minus the signal that ended it
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


def run(
    argv: Argv,
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
    capture: bool = True,
    check: bool = True,
) -> Completed:
    """The ended command and its output.

    `env` is added to ENVIRONMENT, nothing is inherited. `timeout` is in seconds; a command that needs longer
    is killed with its process group. Raises MachineError, with the quoted command line, when the command
    cannot start, runs out of time, or (unless `check` is off) ends with anything but 0.
    """
    words = _words(argv)
    child = _start(
        words,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
    )
    try:
        stdout, stderr = child.communicate(input, timeout=timeout)
    except BaseException as error:  # a Ctrl-C too: nothing of the child stays behind
        _signal_group(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise MachineError(f"{quoted(words)}: no end after {timeout:g} s, killed") from None
        raise
    completed = Completed(words, child.returncode, stdout or b"", stderr or b"")
    if check and completed.status != 0:
        raise MachineError(f"{quoted(words)}: {_outcome(completed.status)}{_last_words(completed.stderr)}")
    return completed


class Child:
    """A long-lived child process. Made by `spawn`, which also ends it."""

    def __init__(self, argv: tuple[str, ...], process: subprocess.Popen[bytes], pidfd: int) -> None:
        self.argv = argv
        self._process = process
        self._pidfd = pidfd

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, minus a signal, or None while it runs."""
        # WNOWAIT leaves the zombie: while it is there, its pid and process group belong to nobody else.
        seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if seen is None:
            return None
        return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status

    def wait(self, timeout: float) -> int | None:
        """The exit status, or None when `timeout` seconds passed first."""
        wait_readable(self._pidfd, timeout)
        return self.status

    def check(self) -> None:
        """Raise MachineError if it has ended, whatever its status: it was meant to stay."""
        if (status := self.status) is not None:
            raise MachineError(f"{quoted(self.argv)}: {_outcome(status)}, want it running")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone, not to its group."""
        signal.pidfd_send_signal(self._pidfd, number)

    def line(self, timeout: float) -> bytes:
        """The next line of its stdout without the newline; needs `spawn(..., stdout=PIPE)`.

        Raises MachineError when none comes within `timeout` seconds, it exceeds MAX_LINE, or stdout ends.
        """
        if self._process.stdout is None:
            raise ValueError("spawn() was not asked for a pipe")
        pipe, line, deadline = self._process.stdout.fileno(), bytearray(), time.monotonic() + timeout
        while len(line) < MAX_LINE:
            if not wait_readable(pipe, max(0.0, deadline - time.monotonic())):
                raise MachineError(f"{quoted(self.argv)}: no line on stdout after {timeout:g} s")
            byte = os.read(pipe, 1)  # one at a time: what follows the line stays in the pipe
            if byte == b"\n":
                return bytes(line)
            if not byte:
                self.wait(max(0.0, deadline - time.monotonic()))
                self.check()
                raise MachineError(f"{quoted(self.argv)}: closed its stdout, want a line")
            line += byte
        raise MachineError(f"{quoted(self.argv)}: line on stdout is longer than {MAX_LINE} bytes")


PIPE: Final = subprocess.PIPE


@contextmanager
def spawn(
    argv: Argv,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = 10.0,
) -> Iterator[Child]:
    """A running child; on leaving, its process group is terminated, given `grace` seconds, then killed.

    stdout and stderr are ours unless given, `env` is added to ENVIRONMENT. Raises MachineError if it cannot
    start.
    """
    words = _words(argv)
    process = _start(
        words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=pass_fds
    )
    pidfd = os.pidfd_open(process.pid)
    child = Child(words, process, pidfd)
    try:
        yield child
    finally:
        try:
            _signal_group(child.pid, signal.SIGTERM)
            child.wait(grace)
        finally:
            # Also for what the child left behind: while the leader is not reaped, the group is surely ours.
            _signal_group(child.pid, signal.SIGKILL)
            if process.stdout is not None:
                process.stdout.close()
            process.wait()
            os.close(pidfd)


def quoted(argv: Argv) -> str:
    """The command line as a person would type it, on one line."""
    return shlex.join(_words(argv)).replace("\n", "\\n")


def _words(argv: Argv) -> tuple[str, ...]:
    if isinstance(argv, (str, bytes)) or not argv:
        raise ValueError("argv is a list of words, never a command line")
    return tuple(map(str, argv))


def _start(
    words: tuple[str, ...],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    stdin: int,
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**ENVIRONMENT, **(env or {})},
            cwd=cwd,
            pass_fds=pass_fds,
            process_group=0,
        )
    except OSError as error:
        raise MachineError(f"{quoted(words)}: {(error.strerror or 'cannot start').lower()}") from error


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # already gone is what we want
        os.killpg(pid, number)


def _outcome(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    known = {number.value: number.name for number in signal.Signals}
    return f"ended by {known.get(-status, f'signal {-status}')}"  # real-time signals have no name


def _last_words(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f", saying: {lines[-1].strip()[:_TOLD]}" if lines else ""
