"""Mirrors strongroom/host/sealed/settling.py."""

import errno
import os
from pathlib import Path

import pytest

from strongroom.host.folder import Folder
from strongroom.host.sealed import settling
from strongroom.host.sealed.settling import MOST, Settling
from strongroom.sealed.journal import Finished, Record
from strongroom.sealed.manifest import SealedFile


class Disk:
    """Counts what is waited for."""

    def __init__(self, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = at
        self.folder = Folder.open(at)
        self.calls: list[str] = []
        self.records: list[Record] = []
        self.fails = False
        monkeypatch.setattr(os, "fsync", lambda _: self._call("fsync"))
        monkeypatch.setattr(settling, "sync_file_system", lambda _: self._call("syncfs"))

    def record(self, record: Record) -> None:
        self.calls.append("record")
        self.records.append(record)

    def add(self, to: Settling, number: int, size: int = 65536) -> Finished:
        file = SealedFile(
            path=f"{number}", mtime=0, mode=0, size=size, object_id=number.to_bytes(16, "big"), key=bytes(32)
        )
        fd = os.open(self.at / file.object_name, os.O_CREAT | os.O_WRONLY)
        finished = Finished(file, b"")
        to.add(fd, finished)
        return finished

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_many_small_ones_wait_once(disk: Disk) -> None:
    before = open_files()
    with Settling(disk.folder, disk.record) as to:
        added = [disk.add(to, number) for number in range(MOST + 2)]
        assert disk.calls == ["syncfs", *["record"] * MOST]
    assert disk.calls == ["syncfs", *["record"] * MOST, "syncfs", "record", "record"]
    assert disk.records == added
    assert open_files() == before


def test_a_large_one_waits_for_nobody(disk: Disk) -> None:
    with Settling(disk.folder, disk.record) as to:
        small = disk.add(to, 1)
        large = disk.add(to, 2, size=1 << 30)
        assert disk.calls == ["fsync", "record"]
    assert disk.calls == ["fsync", "record", "fsync", "record"]
    assert disk.records == [large, small]


def test_what_the_disk_did_not_take_is_removed_and_never_recorded(disk: Disk) -> None:
    before = open_files()
    disk.fails = True
    with pytest.raises(OSError, match="Input/output"), Settling(disk.folder, disk.record) as to:  # noqa: PT012
        for number in range(5):
            disk.add(to, number)
    assert (disk.records, os.listdir(disk.at), open_files()) == ([], [], before)


def test_after_another_failure_what_is_whole_is_kept(disk: Disk) -> None:
    with pytest.raises(ZeroDivisionError), Settling(disk.folder, disk.record) as to:  # noqa: PT012
        added = [disk.add(to, number) for number in range(2)]
        raise ZeroDivisionError
    assert disk.records == added
    disk.fails = True
    with pytest.raises(ZeroDivisionError), Settling(disk.folder, disk.record) as to:  # noqa: PT012
        disk.add(to, 5)
        raise ZeroDivisionError
    assert disk.records == added
    assert len(os.listdir(disk.at)) == 2


def test_the_call_itself(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    settling.sync_file_system(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        settling.sync_file_system(fd)
