"""Mirrors sidecars/proxy/receipts/kept.py."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sidecars.proxy.ledger import Entry
from sidecars.proxy.receipts.kept import RECORD, KeptAnswers, owner
from strongroom.errors import MachineError

KEY = bytes(range(32))


def entry(number: int, *, at: int = 1_800_000_000) -> Entry:
    return Entry(
        id=f"{number:032x}",
        served_at=at,
        endpoint="/v1/completions",
        complete=number % 2 == 0,
        stream=number % 3 == 0,
        cache=("request", "tenant", "user")[number % 3],
        request_sha256=bytes([1]) * 32,
        forwarded_sha256=bytes([2]) * 32,
        response_sha256=bytes([3]) * 32,
        wire_sha256=bytes([4]) * 32,
        chat="cmpl-",
        index=number,
        keyset_digest="sha256:" + "05" * 32,
    )


def kept(directory: Path, *, most: int = 4, evidence: bytes = bytes(32)) -> KeptAnswers:
    return KeptAnswers(directory, key=KEY, evidence=evidence, most=most)


def loaded(directory: Path) -> list[Entry]:
    found = kept(directory)
    entries = [one for owned_by, one in found.load() if owned_by == owner("ann")]
    found.close()
    return entries


def fill(directory: Path, entries: list[Entry]) -> None:
    for one in entries:
        answers = kept(directory)
        list(answers.load())
        answers.add("ann", one)
        answers.close()


def test_everything_comes_back(tmp_path: Path) -> None:
    fill(tmp_path, [entry(n) for n in range(4)])
    assert loaded(tmp_path) == [entry(n) for n in range(4)]
    assert [owned_by for owned_by, _ in kept(tmp_path).load()] == [owner("ann")] * 4


@pytest.mark.parametrize("count", [5, 8, 9, 13, 20])
def test_the_newest_are_there_and_the_oldest_go(tmp_path: Path, count: int) -> None:
    fill(tmp_path, [entry(n, at=1_800_000_000 + n) for n in range(count)])
    found = [one.index for one in loaded(tmp_path)]
    assert found == [*range(found[0], count)] and 5 <= len(found) <= 8


def test_an_hour_is_what_two_files_hold(tmp_path: Path) -> None:
    start = 1_800_000_000
    fill(tmp_path, [entry(0, at=start), entry(1, at=start + 3599), entry(2, at=start + 3600)])
    assert len([*tmp_path.iterdir()]) == 2
    fill(tmp_path, [entry(3, at=start + 7200)])
    assert [one.index for one in loaded(tmp_path)] == [2, 3]


def test_other_evidence_takes_the_files_away(tmp_path: Path) -> None:
    fill(tmp_path, [entry(0)])
    assert [*kept(tmp_path, evidence=b"\1" * 32).load()] == [] and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("at", range(0, RECORD, 17))
def test_a_changed_record_is_passed_over(tmp_path: Path, at: int) -> None:
    fill(tmp_path, [entry(0), entry(1), entry(2)])
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[RECORD + at] ^= 1
    path.write_bytes(data)
    assert loaded(tmp_path) == [entry(0), entry(2)]


def test_ids_of_every_length_fit(tmp_path: Path) -> None:
    longest = replace(entry(0), chat="abcdefghijkl-")
    fill(tmp_path, [longest])
    assert loaded(tmp_path) == [longest]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = kept(tmp_path)
    answers.add("ann", entry(0))
    monkeypatch.setattr("os.write", lambda file, data: 1)
    with pytest.raises(MachineError, match="no room"):
        answers.add("ann", entry(1))
    monkeypatch.undo()
    answers.add("ann", entry(2))
    answers.close()
    assert loaded(tmp_path) == [entry(0), entry(2)]


@pytest.mark.parametrize("call", ["open", "ftruncate"])
def test_a_file_that_cannot_be_begun_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fill(tmp_path, [entry(n) for n in range(8)])
    answers = kept(tmp_path)
    assert len([*answers.load()]) == 8  # both files are full

    def fails(*_: object) -> int:
        raise OSError(24, "Too many open files")

    for _ in range(3):
        with monkeypatch.context() as broken:
            broken.setattr(os, call, fails)
            with pytest.raises(MachineError, match="too many open files"):
                answers.add("ann", entry(8))
        assert [one.index for one in loaded(tmp_path)] == [*range(8)], "the newest may not go"
    answers.add("ann", entry(8))
    answers.add("ann", entry(9))
    answers.close()
    assert [one.index for one in loaded(tmp_path)] == [4, 5, 6, 7, 8, 9]
