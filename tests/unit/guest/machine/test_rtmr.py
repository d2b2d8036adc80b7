"""Mirrors guest/machine/rtmr.py, over a tree in which writing extends, and over plain files, where it does not."""

from hashlib import sha384
from pathlib import Path

import pytest

from guest.machine.rtmr import RTMR
from strongroom.errors import MachineError
from tests.fakes.rtmr import served

DIGEST = sha384(b"event").digest()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for n in range(4):
        (tmp_path / f"rtmr{n}:sha384").write_bytes(bytes(48))
    return tmp_path


def test_extending_is_a_chain(fuse_device: Path, tmp_path: Path) -> None:
    with served(tmp_path / "measurements") as root:
        rtmr = RTMR(root)
        before = rtmr.read(3)
        rtmr.extend(DIGEST)
        rtmr.extend(DIGEST)
        once = sha384(before + DIGEST).digest()
        assert rtmr.read(3) == sha384(once + DIGEST).digest()
        assert [rtmr.read(n) for n in range(3)] == [bytes([n]) * 48 for n in range(3)]


def test_a_kernel_that_only_stores_is_told(files: Path) -> None:
    with pytest.raises(MachineError, match="rtmr 3: did not become the hash of itself"):
        RTMR(files).extend(DIGEST)


@pytest.mark.parametrize("index", [0, 1, 2, 4, -1])
def test_only_the_guests_register_is_extended(files: Path, index: int) -> None:
    with pytest.raises(MachineError, match=f"rtmr {index}: not the guest's to extend, want 3"):
        RTMR(files).extend(DIGEST, index)
    assert RTMR(files).read(2) == bytes(48)


def test_sizes_are_exact(files: Path) -> None:
    with pytest.raises(MachineError, match="digest is 32 bytes, want 48"):
        RTMR(files).extend(bytes(32))
    (files / "rtmr3:sha384").write_bytes(bytes(32))
    with pytest.raises(MachineError, match="rtmr 3: 32 bytes, want 48"):
        RTMR(files).extend(DIGEST)
    with pytest.raises(MachineError, match=r"register is 4, want 0\.\.3"):
        RTMR(files).read(4)


def test_a_kernel_without_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"absent is missing, want Linux 6\.16 or later"):
        RTMR(tmp_path / "absent").extend(DIGEST)
    with pytest.raises(MachineError, match="rtmr 3: no such file or directory"):
        RTMR(tmp_path).read(3)
