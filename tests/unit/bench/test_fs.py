"""The arithmetic of the file system bench: order of the rounds, medians, ratios, what is met. Nothing is mounted."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from bench.fs.daemon import Daemon
from bench.fs.model import FILE, llama, weights
from bench.fs.mounts import Mounted, Subject
from bench.fs.names import NEWEST, PLAIN, STREAM
from bench.fs.readers import READERS
from bench.fs.report import FLOOR, Part, Target
from bench.fs.trial import Measured, Round, in_turns, timed
from strongroom.errors import MachineError


def subject(name: str) -> Subject:
    return Subject(name, lambda: nullcontext(Mounted(Path(name))))


def measured_at(speeds: dict[str, list[float]]) -> Measured:
    rounds = {name: iter(values) for name, values in speeds.items()}

    def work(mounted: Mounted) -> Round:
        return Round(1_000_000_000, 1 / next(rounds[str(mounted.path)]), 0.25)

    return in_turns("seq", [subject(name) for name in speeds], work, rounds=3)


def test_every_second_round_goes_backwards() -> None:
    seen: list[str] = []

    def work(mounted: Mounted) -> Round:
        seen.append(str(mounted.path))
        return Round(1, 1.0, 0.0)

    in_turns("seq", [subject("a"), subject("b")], work, rounds=3)
    assert "".join(seen) == "abbaab"


def test_a_subject_that_fails_is_left_out_with_its_reason() -> None:
    def work(mounted: Mounted) -> Round:
        if str(mounted.path) == "b":
            raise MachineError("b: no")
        return Round(1, 1.0, 0.0)

    measured = in_turns("seq", [subject("a"), subject("b")], work, rounds=3)
    assert list(measured.figures) == ["a"]
    assert measured.absent == {"b": "b: no"}


def test_ratio_is_of_medians_and_shows_the_rounds() -> None:
    part = Part(
        "read",
        "",
        [measured_at({NEWEST: [1, 2, 9], STREAM: [2, 3, 4]})],
        [Target("seq", STREAM, NEWEST, 1.6)],
    )
    (ratio,) = part.ratios()
    assert ratio.value == pytest.approx(1.5)
    assert ratio.low == pytest.approx(4 / 9)
    assert ratio.high == pytest.approx(2.0)
    assert not ratio.met
    assert "MISSED" in part.text()


def test_what_costs_is_wanted_low() -> None:
    figures = measured_at({PLAIN: [1, 1, 1], STREAM: [1, 1, 1]})
    (ratio,) = Part("read", "", [figures], [Target("seq", STREAM, PLAIN, 1.05, "time")]).ratios()
    assert ratio.met


def test_the_floor_holds_where_nothing_higher_is_wanted() -> None:
    (ratio,) = Part("read", "", [measured_at({NEWEST: [1, 1, 1], STREAM: [0.8, 0.8, 0.8]})]).ratios()
    assert ratio.target.bound == FLOOR
    assert not ratio.met


def test_the_object_is_json_and_holds_each_ratio() -> None:
    part = Part("read", "", [measured_at({NEWEST: [1, 2, 3], STREAM: [2, 3, 4]})])
    told = json.loads(json.dumps(part.to_json()))
    assert told["figures"]["seq"][STREAM]["reader_cpu"] == 0.25
    assert told["ratios"][0]["ratio"] == 1.5


def test_work_ahead_counts_from_its_beginning() -> None:
    done = timed(lambda: 5, Mounted(Path("a"), since=time.monotonic() - 10))
    assert done.seconds >= 10


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_all_or_a_sample(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 << 20))
    count = READERS[name](path)
    assert count == 3 << 20


def test_cpu_of_a_group_grows() -> None:
    daemon = Daemon(os.getpgrp())
    before = daemon.cpu()
    sum(range(300_000))
    assert daemon.cpu() > before
    assert daemon.memory().largest > 1 << 20


def test_a_model_is_whole(tmp_path: Path) -> None:
    weights(tmp_path / FILE, 40 << 20)
    header = int.from_bytes((tmp_path / FILE).read_bytes()[:8], "little")
    entries = json.loads((tmp_path / FILE).read_bytes()[8 : 8 + header])
    entries.pop("__metadata__")
    ends = [entry["data_offsets"][1] for entry in entries.values()]
    assert (tmp_path / FILE).stat().st_size == 8 + header + max(ends)


def test_a_llama_has_an_index_of_all_its_tensors(tmp_path: Path) -> None:
    size = llama(tmp_path, 1)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == size
    assert {path.name for path in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
