"""A state volume under a real systemd: its unit as shipped, with a program that writes to it while it is killed."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from demo.container import Bind, Container, container
from demo.network import cable
from tests import ROOT
from tests.fakes.gocryptfs import MASTER_KEY, fsck, program, write_volume
from tests.fakes.gocryptfs import mounted as really_mounted
from tests.fakes.sealed import pattern

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.slow,
    pytest.mark.usefixtures("fuse_device", "systemd_host"),
]

UNIT: Final = "strongroom-live@state.service"
OTHER: Final = "strongroom-live@other.service"  # the same volume, under another key
PYTHON: Final = "/usr/lib/strongroom/venv/bin/python"
KILLS: Final = 6
BACK: Final = 60.0  # seconds
# Only where the program is: everything around it is the product's.
HERE: Final = "[Service]\nEnvironment=PYTHONPATH=/srv/strongroom\n"
AGENT: Final = f"""\
[Unit]
Requires=strongroom-credentials.socket
After=basic.target strongroom-credentials.socket
[Service]
Type=notify
Environment=PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/strongroom
ExecStart={PYTHON} -P -m tests.fakes.granting /srv/grants
"""
# Appends numbered lines, each with an fsync. After an error it opens the file anew and writes the line again, as a
# program does that was told to expect it. Says how many errors there were, and how many lines were safe.
WRITER: Final = """
import os, sys, time
path, stop, lines, errors = "/srv/state/log", "/run/stop", 0, 0
while not os.path.exists(stop):
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            while not os.path.exists(stop):
                os.pwrite(fd, b"%0999d\\n" % lines, 1000 * lines)
                os.fsync(fd)
                lines += 1
        finally:
            os.close(fd)
    except OSError:
        errors += 1
        time.sleep(0.02)
print(errors, lines)
"""


@dataclass(frozen=True)
class Guest:
    container: Container
    folder: Path

    @property
    def state(self) -> Path:
        """The mount, as this machine sees it."""
        return Path(f"/proc/{self.container.pid()}/root/srv/state")

    def run(self, *argv: str) -> str:
        return self.container.run(*argv).stdout.decode()

    def shown(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "-p", name, "--value", unit).strip()

    def until_served(self, before: int = 0) -> int:
        """The main process, once it is another than `before` and ready."""
        deadline = time.monotonic() + BACK
        while True:
            found = self.container.main_pid(UNIT)
            if found not in (0, before) and self.shown(UNIT, "ActiveState") == "active":
                return found
            assert time.monotonic() < deadline, self.container.journal("-u", UNIT)
            time.sleep(0.05)


def furnish(folder: Path) -> list[Bind]:
    folder.chmod(0o755)
    units, grants = folder / "units", folder / "grants"
    units.mkdir()
    for path in (ROOT / "systemd").iterdir():
        if path.suffix in {".service", ".socket", ".target"}:
            shutil.copyfile(path, units / path.name)
    (units / "strongroom-agent.service").write_text(AGENT)
    (units / "strongroom.target").write_text(
        "[Unit]\nRequires=basic.target strongroom-agent.service\nAfter=basic.target strongroom-agent.service\n"
        "AllowIsolate=yes\n"
    )
    (units / "strongroom-live@.service.d").mkdir()
    (units / "strongroom-live@.service.d" / "here.conf").write_text(HERE)
    write_volume(folder / "store", contents={"there": pattern(5000, 1)}, links={})
    volume = {"source": "/srv/store", "mount": "/srv/state", "format": "gocryptfs", "writable": True}
    for unit, key in ((UNIT, MASTER_KEY), (OTHER, bytes(32))):
        (grants / unit).mkdir(parents=True)
        (grants / unit / "volume").write_text(json.dumps(volume))
        (grants / unit / "model-key").write_bytes(key)
    return [
        Bind(units, "/etc/systemd/system"),
        Bind(grants, "/srv/grants"),
        Bind(folder / "store", "/srv/store", writable=True),
        Bind(ROOT, "/srv/strongroom"),
        Bind(Path(sys.prefix), "/usr/lib/strongroom/venv"),
    ]


@contextmanager
def machine(folder: Path) -> Iterator[Guest]:
    """A guest that has a volume to serve, and does not yet."""
    program()
    binds = furnish(folder)
    with (
        (folder / "guest.log").open("wb") as log,
        cable() as wire,
        container(folder, name="live", namespace=wire.namespace, binds=binds, log=log) as booting,
    ):
        deadline = time.monotonic() + BACK
        while b"Reached target strongroom.target" not in (told := (folder / "guest.log").read_bytes()):
            assert booting.alive, told.decode("utf-8", "replace")[-2000:]
            assert time.monotonic() < deadline, told.decode("utf-8", "replace")[-2000:]
            time.sleep(0.1)
        yield Guest(booting, folder)


def test_a_program_goes_on_through_kills_and_the_volume_is_sound(tmp_path: Path) -> None:
    with machine(tmp_path) as guest:
        guest.run("systemctl", "start", UNIT)
        main = guest.until_served()
        assert (guest.state / "there").read_bytes() == pattern(5000, 1)
        inside = ["nsenter", "-t", str(guest.container.pid()), "-a", "--", "python3", "-c", WRITER]
        with subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
            try:
                for _ in range(KILLS):
                    until_grown(guest)
                    guest.run("kill", "-9", str(main))
                    main = guest.until_served(main)
                until_grown(guest)
                guest.run("touch", "/run/stop")
                out, err = writer.communicate(timeout=BACK)
            finally:
                writer.kill()
        assert (writer.returncode, err) == (0, "")
        errors, lines = map(int, out.split())
        print(f"{KILLS} kills, {errors} errors, {lines} lines")
        assert errors >= 1
        assert (guest.state / "log").read_bytes() == b"".join(b"%0999d\n" % line for line in range(lines))
        assert int(guest.shown(UNIT, "NRestarts")) == KILLS
        assert guest.shown(UNIT, "StatusText") == "serving store, writable"
        guest.run("systemctl", "stop", UNIT)
        assert guest.shown(UNIT, "Result") == "success"
        assert guest.container.run("mountpoint", "-q", "/srv/state", check=False).status != 0
        assert guest.run("ls", "-A", "/srv/state") == ""  # nobody ever wrote to the directory below
        checked = fsck(tmp_path / "store")
        assert checked.status == 0, checked.stdout + checked.stderr
        with really_mounted(tmp_path / "store") as top:
            assert (top / "log").stat().st_size == 1000 * lines


def until_grown(guest: Guest) -> None:
    """Until the program has written again."""

    def size() -> int:
        try:
            return (guest.state / "log").stat().st_size
        except OSError:
            return 0

    before, deadline = size(), time.monotonic() + BACK
    while size() <= before:
        assert time.monotonic() < deadline, guest.container.journal("-u", UNIT)
        time.sleep(0.02)


def test_the_unit_may_do_what_files_need_and_no_more(tmp_path: Path) -> None:
    """Owners, setuid and setgid, devices; its runtime folder outlives it; a key that is wrong stays wrong."""
    with machine(tmp_path) as guest:
        guest.run("systemctl", "start", UNIT)
        main = guest.until_served()
        shell = (
            "cd /srv/state && mkdir d && chown 1000:1001 d && chmod 2775 d && touch d/tool && chmod 4755 d/tool && "
            "mknod null c 1 3 && mkfifo pipe && setfattr -n user.note -v here d/tool 2>/dev/null; "
            "chmod 700 d && echo mine >d/mine && chown 1000 d/mine && cat d/mine"
        )
        assert guest.run("sh", "-c", f"umask 022; {shell}") == "mine\n"
        found = (guest.state / "d").stat()
        assert (found.st_uid, found.st_gid) == (1000, 1001)
        assert (guest.state / "d/tool").stat().st_mode & 0o7777 == 0o4755
        assert (guest.state / "d/tool").stat().st_gid == 1001  # of the directory, as setgid says
        assert stat.S_ISCHR((guest.state / "null").stat().st_mode)
        assert os.stat(guest.state / "null").st_rdev == os.makedev(1, 3)
        assert (
            "Permission denied" in guest.container.run("cat", "/srv/state/null", check=False).stderr.decode()
        )
        status = guest.run("cat", f"/proc/{main}/status")
        assert "NoNewPrivs:\t1" in status
        guest.run("systemctl", "stop", UNIT)
        assert guest.run("stat", "-c", "%a %U", "/run/strongroom-fs").split() == ["700", "root"]
        assert guest.container.run("systemctl", "start", OTHER, check=False).status != 0
        assert guest.shown(OTHER, "ExecMainStatus") == "5"
        assert guest.shown(OTHER, "NRestarts") == "0"
        assert guest.shown(OTHER, "StatusText") == "volume: no name opens under this key"
