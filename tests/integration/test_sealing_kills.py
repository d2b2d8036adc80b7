"""`strongroom seal` killed at random moments, as a person or a machine would do it, and gone on with."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strongroom.broker.resource import VolumeKey
from tests import ROOT
from tests.unit.sealed.test_by_hand import read_tree

SEED = 20261120
SIZE = 12 << 20  # bytes of each file
FILES = 4

pytestmark = pytest.mark.slow


def command(*words: str) -> list[str]:
    argv = ["seal", "model", "sealed", "--name", "m", *words, "--no-sha256"]
    return [sys.executable, "-m", "strongroom", *argv]


def run(at: Path, *words: str) -> None:
    done = subprocess.run(
        command(*words), cwd=at, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


def kill_after(at: Path, seconds: float, *words: str) -> int:
    """Start the command and kill it; its exit status, 0 when it was faster."""
    process = subprocess.Popen(
        command(*words), cwd=at, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def key(at: Path, name: str) -> bytes:
    return VolumeKey.parse((at / name).read_bytes()).key


def test_killed_again_and_again(tmp_path: Path) -> None:
    chance, model = random.Random(SEED), tmp_path / "model"
    model.mkdir()
    contents = {f"shard-{n}": os.urandom(SIZE + n) for n in range(FILES)}
    for name, content in contents.items():
        (model / name).write_bytes(content)
    first = ("--epoch", "1", "--key-out", "1.key", "--resume")
    started = time.monotonic()
    run(tmp_path, "--epoch", "1", "--key-out", "measured.key")  # how long one takes
    took = time.monotonic() - started
    for path in sorted((tmp_path / "sealed").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    while kill_after(tmp_path, chance.uniform(0.3, 1.0) * took, *first) != 0:
        assert not (tmp_path / "sealed" / "MANIFEST").exists() or read_tree(
            tmp_path / "sealed", key(tmp_path, "1.key")
        )
        if time.monotonic() - started > 20:
            run(tmp_path, *first)
            break
    assert read_tree(tmp_path / "sealed", key(tmp_path, "1.key")) == contents

    after = contents | {f"shard-{n}": os.urandom(SIZE) for n in (1, 3)}
    for name in ("shard-1", "shard-3"):
        (model / name).write_bytes(after[name])
    update = ("--update", "--key", "1.key", "--epoch", "2", "--key-out", "2.key", "--resume")
    for _ in range(4):
        kill_after(tmp_path, chance.uniform(0.3, 1.0) * took, *update)
        try:
            assert read_tree(tmp_path / "sealed", key(tmp_path, "1.key")) == contents
        except AssertionError:  # the commit was made
            assert read_tree(tmp_path / "sealed", key(tmp_path, "2.key")) == after
            break
    run(tmp_path, *update)
    assert read_tree(tmp_path / "sealed", key(tmp_path, "2.key")) == after
