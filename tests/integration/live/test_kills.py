"""Daemons killed while programs write, and one writer of a volume at a time."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.live import FRONTS, agrees, running, snapshot, start

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


WRITER = """if True:
    import os, random, sys
    path, seed = sys.argv[1], int(sys.argv[2])
    choice, blocks = random.Random(seed), 512
    fd = os.open(path, os.O_RDWR)
    number = 0
    while True:
        number = number % 250 + 1
        first = choice.randrange(blocks)
        count = min(choice.choice((1, 2, 64, 256)), blocks - first)
        os.pwrite(fd, bytes([number]) * (count * 4096), first * 4096)
"""


@pytest.mark.parametrize("front", FRONTS)
def test_a_kill_leaves_every_block_old_or_new(store: Path, tmp_path: Path, front: str) -> None:
    """Every block holds one number. A write that was cut is finished by the next daemon, so none is torn."""
    mount, choice, finished = tmp_path / "live", random.Random(1), 0
    for turn in range(12):
        live = start(front, "gocryptfs", store, mount)
        finished += "".join(live.lines).count("finished")
        content = (mount / "file").read_bytes() if turn else bytes(512 * BLOCK)
        assert len(content) == 512 * BLOCK
        assert all(len(set(content[at : at + BLOCK])) == 1 for at in range(0, len(content), BLOCK))
        if not turn:
            (mount / "file").write_bytes(content)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(mount / "file"), str(turn)], stderr=subprocess.DEVNULL
        )
        time.sleep(0.3 + choice.random() / 4)
        live.kill()
        writer.wait()
    with running(front, "gocryptfs", store, mount) as live:
        left = snapshot(mount)
        live.stop()
    agrees(store, left)


APPENDER = """if True:
    import os, sys
    fd, done = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), int(sys.argv[2])
    while True:
        done += os.write(fd, (b"%0999d\\n%0999d\\n" % (done // 1000, done // 1000 + 1))[done % 1000:][:1000])
        print(done, flush=True)
"""


@pytest.mark.parametrize("front", FRONTS)
def test_a_kill_leaves_what_appending_had_written(store: Path, tmp_path: Path, front: str) -> None:
    """What write() said was taken is there, and nothing that was not to be written."""
    mount, choice, taken = tmp_path / "live", random.Random(2), 0
    for _ in range(6):
        live = start(front, "gocryptfs", store, mount)
        log = (mount / "log").read_bytes() if (mount / "log").exists() else b""
        assert len(log) >= taken
        assert log == b"".join(b"%0999d\n" % line for line in range(len(log) // 1000 + 1))[: len(log)]
        writer = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(mount / "log"), str(len(log))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        time.sleep(0.2 + choice.random() / 4)
        live.kill()
        output, _ = writer.communicate()
        taken = int((output.split() or [str(len(log))])[-1])


def test_a_kill_leaves_a_tree_that_can_be_used(store: Path, tmp_path: Path) -> None:
    """Directories and long names are made and removed in steps; a crash between two is healed."""
    mount, choice = tmp_path / "live", random.Random(3)
    script = """if True:
        import os, random, sys
        top, choice = sys.argv[1], random.Random(int(sys.argv[2]))
        names = ["a", "b", "l" * 200, "m" * 255]
        while True:
            path = top + "/" + "/".join(choice.choice(names) for _ in range(choice.randrange(1, 4)))
            other = top + "/" + choice.choice(names)
            try:
                choice.choice((os.mkdir, os.rmdir, lambda p: os.rename(p, other), lambda p: open(p, "w").close(),
                               os.unlink))(path)
            except OSError as error:
                if error.errno == 107: raise
    """
    for turn in range(8):
        live = start("raw", "gocryptfs", store, mount)
        before = snapshot(mount)
        for path in before:
            assert os.lstat(mount / path)
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(mount), str(turn)], stderr=subprocess.DEVNULL
        )
        time.sleep(0.2 + choice.random() / 4)
        live.process.kill()
        live.process.wait()
        writer.kill()  # before the mount goes: it would go on in the directory below
        writer.wait()
        live.kill()
    with running("raw", "gocryptfs", store, mount) as live:
        left = snapshot(mount)
        live.stop()
    agrees(store, left)


def test_one_daemon_writes_a_volume(store: Path, tmp_path: Path) -> None:
    with running("raw", "gocryptfs", store, tmp_path / "live"):
        command = [
            sys.executable,
            "-m",
            "tests.fakes.live_daemon",
            "raw",
            "gocryptfs",
            str(store),
            str(tmp_path / "b"),
        ]
        second = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "held by another daemon, want one writer" in second.stderr
