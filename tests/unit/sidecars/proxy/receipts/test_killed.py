"""kill -9 at any moment: what was told is in the log, and the log verifies."""

import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.receipts.tree import Tree
from tests import ROOT
from tests.unit.sidecars.proxy.receipts.appending import leaf, opened


@pytest.mark.guarantee("G12")
def test_a_log_verifies_after_every_kill(tmp_path: Path) -> None:
    told, expected = 0, Tree()
    for life in range(6):
        argv = [sys.executable, "-m", "tests.unit.sidecars.proxy.receipts.appending", str(tmp_path / "log")]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(20 + 37 * life):
                told = int(process.stdout.readline())
            process.kill()
            told = max([told, *map(int, process.stdout.read().split())])  # what it said while it was killed
        log = opened(tmp_path / "log")
        assert log.tree.size >= told
        while expected.size < log.tree.size:
            expected.append(leaf(expected.size))
        assert log.tree.head() == expected.head()
        assert log.tree.first <= max(0, log.tree.size - 40)
        last = log.tree.size - 1
        assert log.tree.inclusion(last, log.tree.size) == expected.inclusion(last, expected.size)
        log.close()
