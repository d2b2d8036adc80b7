"""The guest machine of the demo: a real systemd as PID 1 in systemd-nspawn, over this machine's root, read-only below.

Nothing of this machine's own configuration starts: /etc/systemd/system is replaced by our units, and the boot goes
straight to strongroom.target. Works whether or not systemd is this machine's own PID 1.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from strongroom.errors import MachineError
from strongroom.host.run import Child, Completed, run, spawn

TARGET: Final = "strongroom.target"
_HOST_SYSTEMD: Final = Path("/run/systemd/system")
_UNIFIED: Final = Path("/sys/fs/cgroup/unified")
_STOP_TIMEOUT: Final = 45.0  # seconds


@dataclass(frozen=True, slots=True)
class Bind:
    source: Path
    target: str
    writable: bool = False

    def option(self) -> str:
        return f"--bind{'' if self.writable else '-ro'}={self.source}:{self.target}"


@dataclass(slots=True)
class Container:
    """A booting or booted guest."""

    child: Child
    _pid: int | None = field(default=None)

    @property
    def alive(self) -> bool:
        return self.child.status is None

    def pid(self, timeout: float = 20.0) -> int:
        """The pid, on this machine, of the guest's PID 1."""
        deadline = time.monotonic() + timeout
        while self._pid is None:
            children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
            with suppress(OSError):
                if found := next(filter(_is_init, map(int, children.read_text().split())), None):
                    self._pid = found
                    break
            if time.monotonic() > deadline or not self.alive:
                raise MachineError("guest: systemd-nspawn started no PID 1")
            time.sleep(0.02)
        return self._pid

    def run(
        self, *argv: str, input: bytes | None = None, timeout: float = 30.0, check: bool = True
    ) -> Completed:
        """A command inside the guest."""
        inside = ["nsenter", "-t", str(self.pid()), "-a", "--", *argv]
        return run(inside, input=input, timeout=timeout, check=check)

    def journal(self, *options: str) -> str:
        return self.run(
            "journalctl", "--no-pager", "-o", "short-monotonic", *options, check=False
        ).stdout.decode("utf-8", "replace")

    def main_pid(self, unit: str) -> int:
        """The unit's main process, in the guest's numbering; 0 when it has none."""
        done = self.run("systemctl", "show", "-p", "MainPID", "--value", unit)
        return int(done.stdout.decode().strip() or 0)

    def poweroff(self) -> None:
        with suppress(MachineError):
            self.run("systemctl", "poweroff", check=False)
        if self.child.wait(_STOP_TIMEOUT) is None:
            raise MachineError(f"guest: still up {_STOP_TIMEOUT:g} s after poweroff")


def _is_init(pid: int) -> bool:
    """Whether it is the first process of its namespace: nspawn's first child may be a helper, for a moment."""
    fields = dict(line.partition(":")[::2] for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return fields.get("NSpid", "").split()[-1:] == ["1"]


@contextmanager
def container(
    folder: Path, *, name: str, namespace: str, binds: Sequence[Bind], log: IO[bytes]
) -> Iterator[Container]:
    """Boot systemd in `namespace` (a network namespace's name) with `binds` laid over this machine's root."""
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    nspawn = [
        "systemd-nspawn", "--quiet", "--boot", "--register=no", "--console=read-only", "--link-journal=no",
        "--volatile=overlay", f"--machine={name}", f"--directory={root}",
        f"--network-namespace-path=/run/netns/{namespace}", "--capability=CAP_NET_ADMIN", "--bind=/dev/fuse",
        *(bind.option() for bind in binds),
        *(() if _HOST_SYSTEMD.is_dir() else ("--keep-unit",)),
        f"systemd.unit={TARGET}",
    ]  # fmt: skip
    # The root is a bind mount in a mount namespace of its own: it vanishes with the guest, however that ends.
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount --bind / "$0" && exec "$@"',
        str(root),
    ]
    with spawn([*argv, *nspawn], env=_environment(), stdout=log, stderr=log, grace=15.0) as child:
        guest = Container(child)
        try:
            yield guest
        finally:
            if guest.alive:
                with suppress(MachineError):
                    guest.poweroff()
    for left in ("payload", "supervisor"):
        with suppress(OSError):
            (_UNIFIED / left).rmdir()


def _environment() -> Mapping[str, str]:
    return {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


def require_root() -> None:
    if os.geteuid() != 0:
        raise MachineError("demo: boots a container and mounts filesystems, run it as root")
