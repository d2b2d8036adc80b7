"""Mirrors strongroom/host/sealed/sealing.py: a seal that was cut leaves nothing, or goes on."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError, VerifyError
from strongroom.host.sealed.destination import JOURNAL, is_cut
from strongroom.host.sealed.sealing import Manner, Plan
from tests.fakes.sealed import MODEL_KEY
from tests.fakes.sealing import NEXT, RELEASE, Cut, contents, cut_after, grow, make_plan, names, seal
from tests.unit.sealed.test_by_hand import read_tree


def test_a_failed_seal_leaves_nothing_when_nothing_was_finished(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest)
    assert not dest.exists()
    dest.mkdir()
    with pytest.raises(Cut):
        seal(plan, dest)
    assert names(dest) == []


def test_a_cut_seal_goes_on(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_after(2, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(workers=1))
    monkeypatch.undo()
    assert is_cut(dest) and len(os.listdir(dest / "objects")) == 2
    before = {path.name: path.stat().st_mtime_ns for path in (dest / "objects").iterdir()}
    with pytest.raises(ConfigError, match="a seal into it was cut: --resume goes on"):
        seal(make_plan(plan.source), dest)
    again = seal(make_plan(plan.source), dest, manner=Manner(workers=2, resume=True))
    after = {path.name: path.stat().st_mtime_ns for path in (dest / "objects").iterdir()}
    assert before.items() < after.items() and len(after) == 3
    assert again.sealed == 3 and not is_cut(dest)
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


def test_what_changed_since_the_cut_is_sealed_again(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(2, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(workers=1))
    monkeypatch.undo()
    grow(plan.source / "exact.bin")
    seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)
    assert len(os.listdir(dest / "objects")) == 3  # what was sealed in vain is gone


def test_a_store_that_lost_objects_since_the_cut(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(2, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(workers=1))
    monkeypatch.undo()
    one, other = (dest / "objects").iterdir()
    one.unlink()
    data = bytearray(other.read_bytes())
    data[5] ^= 1
    other.write_bytes(data)
    with pytest.raises(MachineError, match=f"object {other.name}: chunk 0: tag does not verify: it does not"):
        seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert not other.exists()
    seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


def test_a_cut_right_before_the_commit(plan: Plan, dest: Path) -> None:
    def cut(_: bytes) -> None:
        raise Cut

    with pytest.raises(Cut):
        seal(plan, dest, keep=cut)
    assert not (dest / "MANIFEST").exists()
    with pytest.raises(VerifyError, match="journal: key commitment does not match"):
        seal(make_plan(plan.source), dest, NEXT, manner=Manner(resume=True))
    with pytest.raises(ConfigError, match="its chunks are 65536 bytes"):
        seal(make_plan(plan.source), dest, replace(RELEASE, chunk_log2=17), manner=Manner(resume=True))
    seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)
    assert names(dest) == ["INDEX", "MANIFEST", "objects", "tags"]


def test_to_resume_what_was_never_begun(plan: Plan, dest: Path) -> None:
    seal(plan, dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


@pytest.mark.guarantee("G11")
def test_a_journal_tells_a_thief_nothing(plan: Plan, dest: Path) -> None:
    def cut(_: bytes) -> None:
        raise Cut

    with pytest.raises(Cut):
        seal(plan, dest, keep=cut)
    journal = (dest / JOURNAL).read_bytes()
    assert b"model-1" not in journal
    assert not any(file.key in journal for file in plan.due)
