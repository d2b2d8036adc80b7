"""Mirrors strongroom/host/open_files.py."""

import errno
import resource

import pytest

from strongroom.errors import MachineError, VerifyError
from strongroom.host.open_files import OpenFiles, allowance


class File:
    def __init__(self, opened: list[int], key: int) -> None:
        self._opened = opened
        self._key = key
        opened.append(key)

    def close(self) -> None:
        self._opened.remove(self._key)


def test_the_one_used_longest_ago_is_closed() -> None:
    opened: list[int] = []
    files = OpenFiles(lambda key: File(opened, key), most=2)
    one = files.get(1)
    files.get(2)
    assert files.get(1) is one
    files.get(3)
    assert opened == [1, 3]
    assert files.get(1) is one
    files.close()
    assert opened == []
    assert files.get(1) is not one


def test_nothing_stays_open_when_nobody_reads_any_more() -> None:
    opened: list[int] = []
    files = OpenFiles(lambda key: File(opened, key), most=2)
    files.get(1)
    del files
    assert opened == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_others_may_have_taken_the_rest(number: int) -> None:
    opened: list[int] = []

    def open_file(key: int) -> File:
        if len(opened) >= 2:
            raise MachineError("object: too many open files") from OSError(number, "")
        return File(opened, key)

    files = OpenFiles(open_file, most=10)
    for key in range(5):
        files.get(key)
    assert opened == [3, 4]
    opened += [8, 9]  # not ours: nothing is left for us, and none of ours to close
    files.close()
    with pytest.raises(MachineError, match="too many open files"):
        files.get(6)


def test_another_failure_closes_nothing() -> None:
    opened: list[int] = []

    def open_file(key: int) -> File:
        if key:
            raise VerifyError("object: missing")
        return File(opened, key)

    files = OpenFiles(open_file, most=10)
    files.get(0)
    with pytest.raises(VerifyError, match="missing"):
        files.get(1)
    assert opened == [0]


def test_a_part_of_what_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, want in ((1024, 256), (4, 1), (65536, 4096), (resource.RLIM_INFINITY, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert allowance() == want
