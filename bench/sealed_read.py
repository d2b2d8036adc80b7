"""Reading a sealed model through its mount, beside reading the plain file. Both lie on a tmpfs: no disk is measured."""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.pair import Pair, in_turns
from strongroom.broker.resource import VolumeKey
from strongroom.errors import MachineError
from strongroom.host.run import Child, run, spawn
from strongroom.wire.canonical import JSON, pack_json

ROOT: Final = Path(__file__).resolve().parents[1]
SIZE: Final = 256 << 20  # bytes
REQUEST: Final = 1 << 20  # bytes a read
FILE: Final = "model.safetensors"


def measure(work: Path) -> Pair:
    """Sequential reads of one file from its first byte to its last. `work` is an empty folder, best on a tmpfs."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        raise MachineError("sealed read: mounting takes root and /dev/fuse")
    plain, mount = work / "plain", work / "mount"
    plain.mkdir()
    mount.mkdir()
    with (plain / FILE).open("wb") as file:
        for _ in range(SIZE // REQUEST):
            file.write(secrets.token_bytes(REQUEST))
    with _mounted(_sealed(plain, work), mount, work):
        times = in_turns(lambda: _read(plain / FILE), lambda: _read(mount / FILE))
    return Pair(
        title="Sequential read, page cache dropped",
        baseline=("plain file on tmpfs", times[0]),
        subject=("sealed, through FUSE", times[1]),
        size=SIZE,
    )


def _sealed(plain: Path, work: Path) -> Path:
    """Seal `plain`; what the daemon needs of the result is left as its credentials."""
    sealed, key, credentials = work / "sealed", work / "key.json", work / "credentials"
    argv: list[str | Path] = [sys.executable, "-m", "strongroom", "seal", plain, sealed]
    run([*argv, "--epoch", "1", "--name", "bench", "--key-out", key], cwd=ROOT, timeout=300)
    volume = VolumeKey.parse(key.read_bytes())
    credentials.mkdir(mode=0o700)
    settings: dict[str, JSON] = {
        "source": str(sealed),
        "mount": str(work / "mount"),
        "root": volume.root.hex(),
        "epoch": volume.epoch,
    }
    (credentials / "volume").write_bytes(pack_json(settings))
    (credentials / "model-key").write_bytes(volume.key)
    return credentials


@contextmanager
def _mounted(credentials: Path, mount: Path, work: Path) -> Iterator[None]:
    with (work / "daemon.log").open("wb") as log:
        environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
        argv = [sys.executable, "-m", "sidecars.fs"]
        with spawn(argv, env=environment, cwd=ROOT, stdout=log, stderr=log) as daemon:
            _wait(daemon, mount)
            yield


def _wait(daemon: Child, mount: Path) -> None:
    deadline = time.monotonic() + 30
    while not mount.is_mount():
        daemon.check()
        if time.monotonic() > deadline:
            raise MachineError(f"sealed read: {mount} is not mounted after 30 s")
        time.sleep(0.05)


def _read(path: Path) -> None:
    buffer, total = bytearray(REQUEST), 0
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(
            file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED
        )  # tmpfs keeps its pages: they are the file
        while count := file.readinto(buffer):
            total += count
    if total != SIZE:
        raise MachineError(f"{path}: read {total} bytes, want {SIZE}")
