"""Mirrors strongroom/host/sealed/destination.py and sealing.py: a store that lays traps."""

import errno
import os
import tracemalloc
from pathlib import Path

import pytest

from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.sealed.destination import JOURNAL, is_cut
from strongroom.host.sealed.sealing import Manner, Plan
from tests.fakes.sealing import NEXT, Cut, contents, cut_after, make_plan, seal, update
from tests.unit.sealed.test_by_hand import read_tree


def precious(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "id_rsa").write_bytes(b"precious")
    return victim


@pytest.mark.parametrize("trap", ["tags", "objects"])
def test_a_link_instead_of_a_folder_is_refused(plan: Plan, dest: Path, tmp_path: Path, trap: str) -> None:
    victim = precious(tmp_path)
    dest.mkdir()
    (dest / JOURNAL).touch()
    (dest / trap).symlink_to(victim)
    with pytest.raises(MachineError, match=f"dest/{trap}: not a directory"):
        seal(plan, dest, manner=Manner(resume=True))
    assert os.listdir(victim) == ["id_rsa"]


def test_a_link_put_in_place_of_the_tags_meanwhile(dest: Path, tmp_path: Path) -> None:
    victim = precious(tmp_path)

    def fail(_: bytes) -> None:
        (dest / "tags").rename(dest / "tags.aside")
        (dest / "tags").symlink_to(victim)
        raise Cut

    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_bytes(b"{}")  # no object: its end is a giving up
    with pytest.raises(Cut):
        seal(make_plan(tmp_path / "small"), dest, keep=fail)
    assert os.listdir(victim) == ["id_rsa"]
    assert os.listdir(dest / "tags.aside") == []  # what this run wrote, and where it did


def test_what_others_put_there_stays(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dest / "tags").mkdir(parents=True)
    (dest / "tags" / "mine").touch()
    (dest / JOURNAL).touch()
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(resume=True))
    assert [str(path.relative_to(dest)) for path in sorted(dest.rglob("*"))] == ["tags", "tags/mine"]


def test_what_failed_is_what_is_said(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("strongroom.host.sealed.destination.Destination.give_up", fail)
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest)


def test_an_object_left_by_a_journal_that_was_lost(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dest / "objects").mkdir(parents=True)
    (dest / "objects" / ("a" * 32)).write_bytes(b"x")
    (dest / JOURNAL).touch()
    monkeypatch.setattr("strongroom.host.sealed.sealing._SPARE", 1 << 60)
    with pytest.raises(MachineError, match="bytes are free, want"):
        seal(plan, dest, manner=Manner(resume=True))


def test_a_journal_is_not_read_whole(plan: Plan, dest: Path) -> None:
    dest.mkdir()
    with (dest / JOURNAL).open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(FormatError, match="journal: magic is 0000000000000000"):
        seal(plan, dest, manner=Manner(resume=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    with (dest / JOURNAL).open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(VerifyError, match="journal: 1073741825 bytes, want at most 1073741824"):
        seal(plan, dest, manner=Manner(resume=True))


def test_a_commit_that_fails_once_its_key_is_kept(
    source: Path, dest: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an update in which nothing had to be sealed: it goes on all the same."""

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("strongroom.host.sealed.destination.Destination.recommit", fail)
    with pytest.raises(MachineError, match="input/output error"):
        update(source, dest, first)
    monkeypatch.undo()
    assert is_cut(dest)
    update(source, dest, first, manner=Manner(resume=True))
    assert read_tree(dest, bytes(NEXT.model_key)) == contents(source)
