"""A service manager as far as one daemon can tell: hears its notices, keeps its descriptors, starts it again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import ROOT

DEADLINE: Final = 30.0  # seconds
# Descriptors are handed over from 3 on, to the process that $LISTEN_PID names: the shell that becomes the daemon.
_BECOME: Final = """
import fcntl, os, sys
kept = [int(fd) for fd in sys.argv[1].split(",") if fd]
held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in kept]  # above all of the places they go to
os.closerange(3, 100)
for place, fd in enumerate(held, 3):
    os.dup2(fd, place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@dataclass
class Manager:
    """Runs one daemon at a time."""

    at: Path  # a short folder, for the socket
    arguments: Sequence[str] = ("-m", "sidecars.fs")
    notices: list[str] = field(default_factory=list)
    kept: list[tuple[str, int]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self._address = self.at / "notify"
        self._address.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(self._address))
        self._listener.settimeout(0.1)

    def start(self, environment: Mapping[str, str]) -> None:
        self.notices.clear()
        handed = {
            "LISTEN_FDS": str(len(self.kept)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in self.kept),
        }
        descriptors = [fd for _, fd in self.kept]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, ",".join(map(str, descriptors)), *self.arguments],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "NOTIFY_SOCKET": str(self._address),
                **(handed if descriptors else {}),
                **environment,
            },
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def running(self) -> subprocess.Popen[str]:
        assert self.process is not None
        return self.process

    def wait_ready(self) -> None:
        self.hear(lambda: any(notice.startswith("READY=1") for notice in self.notices))

    def hear(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not enough():
            assert self.running.poll() is None, self.running.communicate()[1]
            assert time.monotonic() < deadline, self.notices
            self._take()

    def kill(self) -> str:
        """SIGKILL to the daemon alone, as for a crash. Returns what it had said on stderr."""
        self.running.kill()
        _, stderr = self.running.communicate(timeout=DEADLINE)
        self._drain()
        return stderr

    def lose(self, name: str | None = None) -> None:
        """Close what is kept, or one descriptor of that name."""
        for one in [one for one in self.kept if name in (None, one[0])][: None if name is None else 1]:
            os.close(one[1])
            self.kept.remove(one)

    def stop(self) -> tuple[int, str]:
        """Exit status and stderr after SIGTERM."""
        self.running.send_signal(signal.SIGTERM)
        _, stderr = self.running.communicate(timeout=DEADLINE)
        self._drain()
        return self.running.returncode, stderr

    def wait(self) -> tuple[int, str]:
        """Exit status and stderr of a daemon that ends by itself."""
        _, stderr = self.running.communicate(timeout=DEADLINE)
        self._drain()
        return self.running.returncode, stderr

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stderr:
                self.process.stderr.close()
        for _, descriptor in self.kept:
            os.close(descriptor)
        self.kept.clear()
        self._listener.close()

    def _drain(self) -> None:
        while self._take():
            pass

    def _take(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._listener, 4096, 4)
        except TimeoutError:
            return False
        notice = data.decode()
        self.notices.append(notice)
        lines = dict(line.partition("=")[::2] for line in notice.splitlines())
        name = lines.get("FDNAME", "")
        if lines.get("FDSTORE") == "1":
            self.kept += [(name, descriptor) for descriptor in descriptors]
        elif lines.get("FDSTOREREMOVE") == "1":
            for one in [one for one in self.kept if one[0] == name]:
                os.close(one[1])
                self.kept.remove(one)
        return True
