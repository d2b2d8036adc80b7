"""Workers and whole daemons killed under readers, with a real systemd that keeps the descriptors: nobody gets an error.

The unit is the product's, but for where its program and its credentials are, what it is bound to, and how often it may
start: it is killed far more often here than a machine would bear.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.container import Bind, Container, container
from demo.network import cable
from tests import ROOT
from tests.fakes.sealed import MODEL_KEY, pattern, seal

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.slow,
    pytest.mark.usefixtures("fuse_device", "systemd_host"),
]

UNIT = "strongroom-fs.service"
WORKER_KILLS = 20
DAEMON_KILLS = 8
BACK = 30.0  # seconds for a daemon to be there again
SIZE = 96 << 20  # bytes of each of two files
TARGET = """\
[Unit]
Description=A machine that serves one volume
Requires=basic.target strongroom-fs.service
After=basic.target
AllowIsolate=yes
"""
# Reads whole files again and again, cold, in one of three ways. Every byte is compared.
READER = """
import mmap, os, sys
way, paths, wanted, stop = sys.argv[1], sys.argv[2].split(":"), sys.argv[3].split(":"), sys.argv[4]
content = [open(path, "rb").read() for path in wanted]
buffer, rounds = mmap.mmap(-1, 8 << 20), 0
while not os.path.exists(stop) or not rounds:
    for path, want in zip(paths, content):
        fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if way == "direct" else 0))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if way == "mapped":
            with mmap.mmap(fd, 0, access=mmap.ACCESS_COPY) as view:
                for at in range(0, len(want), 1 << 20):
                    assert view[at : at + (1 << 20)] == want[at : at + (1 << 20)], at
        else:
            at = 0
            while count := os.preadv(fd, [buffer], at):
                assert buffer[:count] == want[at : at + count], at
                at += count
            assert at == len(want)
        os.close(fd)
    rounds += 1
print(rounds)
"""


def make_units(folder: Path) -> Path:
    units = folder / "units"
    drop_in = units / f"{UNIT}.d"
    drop_in.mkdir(parents=True)
    shipped = (ROOT / "systemd" / UNIT).read_text()
    changed, count = re.subn(r"^(BindsTo|LoadCredential|ExecStart)=.*\n", "", shipped, flags=re.MULTILINE)
    assert count == 4
    (units / UNIT).write_text(changed)
    (units / "strongroom.target").write_text(TARGET)
    (drop_in / "here.conf").write_text(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\n"
        "LoadCredential=volume:/srv/credentials/volume\nLoadCredential=model-key:/srv/credentials/model-key\n"
        f"Environment=PYTHONPATH={ROOT}\nExecStart={sys.executable} -m sidecars.fs\n"
    )
    return units


@contextmanager
def machine(folder: Path, mode: str) -> Iterator[tuple[Container, Path]]:
    """A booted guest that serves a sealed model, and the mount as this machine sees it."""
    source, credentials = folder / "source", folder / "credentials"
    source.mkdir()
    credentials.mkdir()
    for number in range(2):
        (source / f"model-{number}.safetensors").write_bytes(pattern(SIZE - 4097 * number, number))
    root = seal(source, folder / "sealed", chunk_log2=17)
    volume = {"source": "/srv/sealed", "mount": "/run/strongroom/model", "root": root.hex(), "epoch": 1}
    (credentials / "volume").write_text(json.dumps(volume | {"mode": mode, "workers": 2}))
    (credentials / "model-key").write_bytes(MODEL_KEY)
    binds = [
        Bind(make_units(folder), "/etc/systemd/system"),
        Bind(folder / "sealed", "/srv/sealed"),
        Bind(credentials, "/srv/credentials"),
    ]
    with (
        (folder / "guest.log").open("wb") as log,
        cable() as wire,
        container(folder, name="kills", namespace=wire.namespace, binds=binds, log=log) as guest,
    ):
        deadline = time.monotonic() + BACK
        while b"Reached target strongroom.target" not in (folder / "guest.log").read_bytes():
            assert guest.alive
            assert time.monotonic() < deadline
            time.sleep(0.1)
        wait_ready(guest, 0)
        yield guest, Path(f"/proc/{guest.pid()}/root/run/strongroom/model")


def wait_ready(guest: Container, before: int) -> int:
    """The main process once it is another than `before`, and ready."""
    deadline = time.monotonic() + BACK
    while True:
        shown = guest.run("systemctl", "show", "-p", "MainPID,ActiveState", UNIT, check=False).stdout.decode()
        fields = dict(line.partition("=")[::2] for line in shown.split())
        if fields.get("ActiveState") == "active" and int(fields["MainPID"]) not in (0, before):
            return int(fields["MainPID"])
        assert time.monotonic() < deadline, guest.journal("-u", UNIT)
        time.sleep(0.02)


def children(guest: Container, pid: int) -> list[str]:
    return guest.run("cat", f"/proc/{pid}/task/{pid}/children").stdout.decode().split()


@contextmanager
def readers(mount: Path, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """One of each kind; all must have read at least one whole round, without an error, when they are told to stop."""
    stop = folder / "stop"
    names = sorted(path.name for path in (folder / "source").iterdir())
    paths = ":".join(str(mount / name) for name in names)
    wanted = ":".join(str(folder / "source" / name) for name in names)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", READER, way, paths, wanted, str(stop)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for way in ("plain", "direct", "mapped")
    ]
    try:
        yield running
        stop.touch()
        ended = [one.communicate(timeout=120) for one in running]
        assert [(one.returncode, err) for one, (_, err) in zip(running, ended, strict=True)] == [(0, "")] * 3
        print(f"rounds of the readers: {[int(out) for out, _ in ended]}")
    finally:
        for one in running:
            one.kill()
            one.communicate()


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_readers_notice_no_kill(tmp_path: Path, mode: str) -> None:
    with machine(tmp_path, mode) as (guest, mount), readers(mount, tmp_path) as running:
        main = wait_ready(guest, 0)
        for number in range(WORKER_KILLS):
            workers = children(guest, main)
            guest.run("kill", "-9", workers[number % len(workers)], check=False)  # a filler may be gone
            time.sleep(0.1)
        assert wait_ready(guest, 0) == main
        for _ in range(DAEMON_KILLS):
            guest.run("kill", "-9", str(main))
            main = wait_ready(guest, main)
            time.sleep(0.3)
        assert [one.poll() for one in running] == [None] * 3
        restarts = guest.run("systemctl", "show", "-p", "NRestarts", "--value", UNIT).stdout
        assert int(restarts) == DAEMON_KILLS
        journal = guest.journal("-u", UNIT)
        assert journal.count("another takes over") >= (WORKER_KILLS if mode == "stream" else 1)
        assert "refused" not in journal


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    """Neither a mount, nor a descriptor, nor memory; and a reader with a file open gets an error, not silence."""
    with machine(tmp_path, "resident") as (guest, mount):
        fd = os.open(mount / "model-0.safetensors", os.O_RDONLY | os.O_DIRECT)
        shown = guest.run("systemctl", "show", "-p", "NFileDescriptorStore", "--value", UNIT).stdout
        assert int(shown) == 5  # device, two clones, memory, agreement
        guest.run("systemctl", "stop", UNIT)
        assert not os.path.ismount(mount)
        shown = guest.run("systemctl", "show", "-p", "NFileDescriptorStore", "--value", UNIT).stdout
        assert int(shown) == 0
        os.close(fd)
        with pytest.raises(FileNotFoundError):
            os.stat(mount / "model-0.safetensors")
        result = guest.run("systemctl", "show", "-p", "Result", "--value", UNIT).stdout
        assert result.strip() == b"success"
