"""Mirrors demo/silicon/vtpm.py; what the TPM does is tested with its client."""

import shutil
from pathlib import Path

import pytest

from demo.silicon.vtpm import vtpm
from guest.machine.tpm import opened
from strongroom.errors import MachineError
from tests import need


@pytest.fixture(autouse=True)
def _swtpm() -> None:
    need(shutil.which("swtpm"), "there is no swtpm")


def test_it_ends_with_the_context_and_starts_cleared(socket_dir: Path) -> None:
    for _ in range(2):
        with vtpm(socket_dir) as path, opened(path) as tpm:
            assert tpm.read(15) == bytes(32)
            tpm.extend(15, b"\1" * 32)
        with pytest.raises(MachineError), opened(path):
            pass


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="too long for a socket"), vtpm(tmp_path / ("x" * 100)):
        pass
