"""No byte a store changed is ever read: `python -m tests.tamper_table` and `tests.kill_points`, at small size."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kill_points import SCENARIOS, Scenario, sweep
from tests.tamper_table import in_a_mount, in_the_tree, tell
from tests.tampering import Change, Seen, Tally, make_target

Record = Callable[[str, object], None]


@pytest.mark.guarantee("G4")
@pytest.mark.guarantee("G5")
def test_a_tree_changed_in_every_way(tmp_path: Path, record_property: Record) -> None:
    tallies = in_the_tree(make_target(tmp_path))
    tried = sum(tally.tried for tally in tallies)
    record_property("tried", tried)
    assert tell(tallies) == 0  # the table is what a failure shows
    assert tried > 2500 and len(tallies) == 13
    assert all(tally.refused_trees + tally.refused_chunks >= tally.tried for tally in tallies)


@pytest.mark.guarantee("G4")
@pytest.mark.slow
@pytest.mark.usefixtures("fuse_device")
def test_a_mounted_tree_changed_under_its_reader(
    socket_dir: Path, tmp_path: Path, record_property: Record
) -> None:
    tallies = in_a_mount(make_target(tmp_path), socket_dir, step=5)
    record_property("tried", sum(tally.tried for tally in tallies))
    assert tell(tallies) == 0
    assert sum(tally.refused_chunks for tally in tallies) > 50


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    target = make_target(tmp_path)
    one, two = target.chunks()[:2]
    change = Change("made", "change", {}, frozenset({one}))
    sound: Seen = {place: target.truth(place) for place in target.chunks()}
    cases: tuple[tuple[Seen | None, bool, str | None], ...] = (
        (sound | {one: None}, True, None),
        (sound, True, "was read in spite of it"),
        (sound | {one: b"x"}, True, "WRONG BYTES"),
        (sound | {one: None, two: None}, True, "it was not touched"),
        (None, True, "the whole tree was refused"),
        (None, False, None),
        (sound | {one: None}, False, "the tree was opened"),
    )
    for seen, opens, said in cases:
        tally = Tally("made")
        tally.judge(change, seen, target, opens=opens)
        assert len(tally.wrong) == (said is not None)
        assert said is None or said in tally.wrong[0]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "failed"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_end_of_a_seal_loses_a_tree_or_a_key(
    scenario: Scenario, way: str, tmp_path: Path, record_property: Record
) -> None:
    (tmp_path / "work").mkdir()
    ended = sweep(scenario, way, tmp_path / "work", step=7)
    record_property("calls", ended.calls)
    assert ended.wrong == []
    assert ended.new and (ended.old or ended.neither)  # it was ended before the commit, and behind it
    assert ended.resumed == (ended.calls if scenario.resumable else 0)
