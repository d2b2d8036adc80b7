"""Our own daemon under its own command line: sealed by `strongroom seal`, told what to serve by credentials."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

from bench.fs.daemon import Daemon
from bench.fs.mounts import PATIENCE, Mounted, last_line, served
from strongroom.broker.resource import VolumeKey
from strongroom.errors import MachineError
from strongroom.host.run import Child, spawn
from strongroom.sealed.gocryptfs.config import Settings, unlock
from strongroom.wire.canonical import JSON, pack_json

ROOT: Final = Path(__file__).resolve().parents[2]
DAEMON: Final = ("-m", "sidecars.fs")
NULL: Final = ("-m", "bench.fs.null")
_DATAGRAM: Final = 4096  # bytes
_LOOK: Final = 0.1  # seconds between looks at a process that seals, or whether to go on listening


@dataclass(frozen=True, slots=True)
class Volume:
    """What the daemon is told of a volume: the `volume` credential without the mount, and the key."""

    settings: Mapping[str, JSON]
    key: bytes = field(repr=False)


class Sealing(NamedTuple):
    """What the command that seals took: seconds, and bytes resident in its largest process."""

    seconds: float
    memory: int


def seal(plain: Path, sealed: Path) -> Volume:
    """`plain` sealed into `sealed`, by the command line."""
    return seal_watched(plain, sealed)[0]


def seal_watched(plain: Path, sealed: Path) -> tuple[Volume, Sealing]:
    key = sealed.with_name(f"{sealed.name}.key")
    key.unlink(missing_ok=True)
    argv: list[str | Path] = [sys.executable, "-m", "strongroom", "seal", plain, sealed]
    log, begun, memory = sealed.with_name(f"{sealed.name}.log"), time.monotonic(), 0
    with (
        log.open("wb") as file,
        spawn(
            [*argv, "--epoch", "1", "--name", "bench", "--key-out", key], cwd=ROOT, stdout=file, stderr=file
        ) as child,
    ):
        daemon = Daemon(child.pid)
        while (status := child.wait(_LOOK)) is None:
            memory = max(memory, daemon.memory().largest)
        seconds = time.monotonic() - begun
    if status:
        raise MachineError(f"seal: {last_line(log)}")
    volume = VolumeKey.parse(key.read_bytes())
    settings: dict[str, JSON] = {"source": str(sealed), "root": volume.root.hex(), "epoch": volume.epoch}
    return Volume(settings, volume.key), Sealing(seconds, memory)


@contextmanager
def mounted(
    volume: Volume,
    point: Path,
    *,
    program: tuple[str, ...] = DAEMON,
    ahead: bool = False,
    mode: str = "stream",
) -> Iterator[Mounted]:
    """The volume served at `point` by a daemon that said it is ready.

    With `ahead` nobody waits for that: the daemon begins to decrypt, and the clock runs from when the mount is there.
    """
    credentials = point.with_name(f"{point.name}-credentials")
    credentials.mkdir(mode=0o700, parents=True, exist_ok=True)
    (credentials / "volume").write_bytes(pack_json({**volume.settings, "mount": str(point), "mode": mode}))
    (credentials / "model-key").write_bytes(volume.key)
    with _notified(credentials / "notify") as (address, ready):
        env = {"CREDENTIALS_DIRECTORY": str(credentials), "NOTIFY_SOCKET": address}
        with served([sys.executable, *program], point, env=env, cwd=ROOT) as served_at:
            if ahead:
                yield replace(served_at.mounted, since=served_at.appeared)
            else:
                ready(served_at.child)
                yield served_at.mounted


def stream(volume: Volume, point: Path) -> AbstractContextManager[Mounted]:
    """A mount that decrypts what is asked for."""
    return mounted(volume, point)


def resident_cold(volume: Volume, point: Path) -> AbstractContextManager[Mounted]:
    """A fresh mount that has only begun to decrypt."""
    return mounted(volume, point, ahead=True, mode="resident")


@contextmanager
def resident(volume: Volume, point: Path) -> Iterator[Mounted]:
    """A mount that has decrypted everything: an open waits until the file is whole."""
    with mounted(volume, point, mode="resident") as mount:
        for path in point.rglob("*"):
            if path.is_file():
                path.open("rb").close()
        yield mount


@contextmanager
def _notified(path: Path) -> Iterator[tuple[str, Callable[[Child], None]]]:
    """A service manager's socket, read as it is written to, and a wait for READY=1 on it."""
    path.unlink(missing_ok=True)
    told, ended = Event(), Event()

    def listen() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                if b"READY=1" in receiver.recv(_DATAGRAM).splitlines():
                    told.set()

    def ready(child: Child) -> None:
        deadline = time.monotonic() + PATIENCE
        while not told.wait(_LOOK):
            child.check()
            if time.monotonic() > deadline:
                raise MachineError(f"{path.parent.name}: the daemon is not ready after {PATIENCE:g} s")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(os.fspath(path))
        receiver.settimeout(_LOOK)
        listener = Thread(target=listen)
        listener.start()
        try:
            yield os.fspath(path), ready
        finally:
            ended.set()
            listener.join()


def without_cipher(volume: Volume, point: Path) -> AbstractContextManager[Mounted]:
    """The daemon of null.py over the same volume: its content is rubbish, its speed the most we can have."""
    return mounted(volume, point, program=NULL)


def writable(volume: Volume, point: Path) -> AbstractContextManager[Mounted]:
    return mounted(Volume({**volume.settings, "writable": True}, volume.key), point)


def on_gocryptfs_format(cipher: Path, password: str) -> Volume:
    """A folder of gocryptfs as a volume of ours, pinned as little as gocryptfs pins it."""
    master_key = unlock(Settings.parse((cipher / "gocryptfs.conf").read_bytes()), password.encode())
    return Volume({"source": str(cipher), "format": "gocryptfs"}, master_key)
