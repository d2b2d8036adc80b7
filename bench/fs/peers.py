"""The peers: a C passthrough, gocryptfs, securefs, rclone crypt. Each as it is shipped, its volume made by itself.

The password of a volume protects nothing: its content is made up by the bench.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.fs.mounts import Mounted, served
from bench.fs.packages import newest
from strongroom.errors import MachineError
from strongroom.host.run import run

PASSWORD: Final = "bench"
_SOURCE: Final = Path(__file__).with_name("passthrough.c")


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that shows `volume` at a mount point. `fill` makes the volume from a folder of plain files."""

    name: str
    version: str
    fill: Callable[[Path, Path], None] = field(repr=False)
    argv: Callable[[Path, Path], list[str | Path]] = field(repr=False)
    env: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def mounted(self, volume: Path, point: Path) -> Iterator[Mounted]:
        with served(self.argv(volume, point), point, env=self.env) as served_at:
            yield served_at.mounted


def passthrough(work: Path, *, splice: bool) -> Peer:
    """What FUSE itself costs in C: the volume is the plain folder, read in place."""
    binary = work / "passthrough"
    if not binary.exists():
        flags = run(["pkg-config", "--cflags", "--libs", "fuse3"]).stdout.decode().split()
        run(["cc", "-O2", "-o", binary, _SOURCE, *flags])
    option = ["-o", "splice"] if splice else []
    return Peer(
        "passthrough splice" if splice else "passthrough",
        "libfuse " + run(["pkg-config", "--modversion", "fuse3"]).stdout.decode().strip(),
        lambda _plain, _volume: None,
        lambda volume, point: [binary, volume, point, "-f", *option],
    )


def gocryptfs_packaged(work: Path) -> Peer:
    return gocryptfs("gocryptfs-debian", _program("gocryptfs"), work)


def gocryptfs_newest(work: Path, cache: Path) -> Peer:
    return gocryptfs("gocryptfs-newest", newest("gocryptfs", cache) / "usr/bin/gocryptfs", work)


def gocryptfs(name: str, program: Path, work: Path) -> Peer:
    password = work / "password"
    password.write_text(PASSWORD)
    common: list[str | Path] = ["-q", "-passfile", password]

    def argv(volume: Path, point: Path) -> list[str | Path]:
        return [program, *common, "-fg", "-nosyslog", volume, point]

    def fill(plain: Path, volume: Path) -> None:
        volume.mkdir()
        run([program, *common, "-init", "-scryptn", "10", volume])
        with served(argv(volume, point := volume.with_name(f"{volume.name}-filled")), point):
            _copy(plain, point)

    version = re.search(rb"gocryptfs v?([0-9.]+)", run([program, "-version"]).stdout)
    return Peer(name, version[1].decode() if version else "?", fill, argv)


def securefs(work: Path) -> Peer:
    program = _program("securefs")
    env = {"HOME": str(work)}

    def argv(volume: Path, point: Path) -> list[str | Path]:
        return [program, "mount", "--pass", PASSWORD, volume, point]

    def fill(plain: Path, volume: Path) -> None:
        volume.mkdir()
        run([program, "create", "--pass", PASSWORD, "--rounds", "1", volume], env=env)
        with served(argv(volume, point := volume.with_name(f"{volume.name}-filled")), point, env=env):
            _copy(plain, point)

    version = run(
        ["dpkg-query", "-W", "-f=${Version}", "securefs"], check=False
    ).stdout.decode()  # it does not know
    return Peer("securefs", version or "?", fill, argv, env)


def rclone(work: Path) -> Peer:
    """Without its cache in files, as shipped: it writes files from beginning to end only."""
    program, config = _program("rclone"), work / "rclone.conf"
    hidden = run([program, "obscure", PASSWORD]).stdout.decode().strip()
    env = {"RCLONE_CONFIG": str(config), "HOME": str(work), "RCLONE_CACHE_DIR": str(work / "rclone-cache")}

    def remote(volume: Path) -> str:
        config.write_text(f"[bench]\ntype = crypt\nremote = {volume}\npassword = {hidden}\n")
        return "bench:"

    def fill(plain: Path, volume: Path) -> None:
        volume.mkdir()
        run([program, "copy", plain, remote(volume)], env=env, timeout=600)

    def argv(volume: Path, point: Path) -> list[str | Path]:
        return [program, "mount", remote(volume), point]

    version = re.search(rb"v([0-9.]+)", run([program, "version"], env=env).stdout)
    return Peer("rclone crypt", version[1].decode() if version else "?", fill, argv, env)


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise MachineError(f"{name}: not installed, want the package {name}")
    return Path(found)


def _copy(plain: Path, mount: Path) -> None:
    run(["cp", "-r", f"{plain}/.", mount], timeout=1800)
