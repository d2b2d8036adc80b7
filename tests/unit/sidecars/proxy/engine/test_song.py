"""Mirrors sidecars/proxy/engine/song.py."""

import math
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.engine.song import DRIFT, LIKELY, MAX_NOTES, TIE, ChangedError, Note, Song, Songbook
from strongroom.errors import MachineError, ProtocolError

NEAR = TIE * 0.9
NOTES = (
    Note(84, -0.5, {84: -0.5, 1: -2.5}),
    Note(87, -0.75, {87: -0.75, 9: -0.75 - NEAR, 8: -0.75 - TIE * 1.1}),
    Note(3, -1.0, {3: -1.0, 9: -2.5}),
)
SONG = Song(NOTES)


def song(*changes: tuple[int, dict[str, Any]]) -> Song:
    notes = list(NOTES)
    for place, change in changes:
        values = {"token": notes[place].token, "logprob": notes[place].logprob, "likely": notes[place].likely}
        notes[place] = Note(**{**values, **change})
    return Song(tuple(notes))


A, B = "token_id:84", "token_id:87"


def answer(**changes: Any) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "token_ids": [84, 87],
        "logprobs": {
            "token_logprobs": [-0.5, -0.25],
            "top_logprobs": [
                {"token_id:84": -0.5, "token_id:1": -2.5},
                {"token_id:87": -0.25, "token_id:2": -0.3},
            ],
        },
    }
    return {"choices": [{**choice, **changes}]}


def test_a_song_is_read_from_an_answer_with_what_might_have_come() -> None:
    found = Song.from_answer(answer())
    assert found.tokens == (84, 87)
    assert [note.likely for note in found.notes] == [{84: -0.5, 1: -2.5}, {87: -0.25, 2: -0.3}]
    assert [[note.may_be(token) for token in (84, 1, 2, 7)] for note in found.notes] == [
        [True, False, False, False],
        [False, False, True, False],
    ]


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"choices": []},
        {"choices": [{}, {}]},
        answer(token_ids=[]),
        answer(token_ids=[84]),
        answer(token_ids=["84", 87]),
        answer(token_ids=[True, 87]),
        answer(token_ids=None),
        answer(logprobs=None),
        answer(logprobs={"token_logprobs": [-0.5, None], "top_logprobs": [{}, {}]}),
        answer(logprobs={"token_logprobs": [-0.5, math.nan], "top_logprobs": [{A: -0.5}, {A: -0.5}]}),
        answer(logprobs={"token_logprobs": [-0.5, -0.5], "top_logprobs": [{A: -0.5}, {A: -math.inf, B: 0.0}]}),
        answer(logprobs={"token_logprobs": [-0.5, -0.5], "top_logprobs": [{A: None}, {A: -0.5}]}),
        answer(logprobs={"token_logprobs": [-0.5, -0.5], "top_logprobs": [None, {A: -0.5}]}),
        answer(logprobs={"token_logprobs": [-0.5, True], "top_logprobs": [{A: -0.5}, {A: -0.5}]}),
        answer(logprobs={"token_logprobs": [-0.5, -0.5], "top_logprobs": [{"a": -0.5}, {A: -0.5}]}),
        answer(logprobs={"token_logprobs": [-0.5, -0.5], "top_logprobs": [{"token_id:x": -0.5}, {A: -0.5}]}),
    ],
)  # fmt: skip
def test_an_answer_without_a_song_or_without_numbers_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(
        ProtocolError, match=r"^engine: the canary got (an empty answer|numbers that are none)$"
    ):
        Song.from_answer(broken)


def test_no_more_is_taken_than_was_asked_for() -> None:
    most = {f"token_id:{n}": -1.0 for n in range(LIKELY + 1)}
    shown = {"token_logprobs": [-0.5, -0.5], "top_logprobs": [most, most]}
    assert len(Song.from_answer(answer(logprobs=shown)).notes[0].likely) == LIKELY + 1
    shown["top_logprobs"] = [most, {**most, A: -1.0}]
    with pytest.raises(ProtocolError, match="more than it asked for"):
        Song.from_answer(answer(logprobs=shown))


def test_a_song_is_bounded() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        Song(())
    with pytest.raises(ProtocolError):
        Song((NOTES[0],) * (MAX_NOTES + 1))


TURNED: dict[str, Any] = {"token": 9, "likely": {9: -0.75, 87: -0.75 - NEAR}}


@pytest.mark.parametrize(
    "same",
    [
        SONG,
        song((0, {"logprob": -0.5 + DRIFT * 0.9})),
        song((1, TURNED), (2, {"token": 77})),  # another token at the tie, and all that follows is another
        Song(song((1, TURNED)).notes[:2]),
    ],
)
def test_the_same_song_may_differ_after_a_tie_only(same: Song) -> None:
    SONG.require_same(same)


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    ("other", "place"),
    [
        (song((0, {"token": 9})), 0),
        (song((2, {"token": 9})), 2),
        (song((0, {"logprob": -0.5 - DRIFT * 1.1})), 0),
        (song((1, {"token": 8, "likely": {8: -0.75, 87: -0.75}})), 1),  # tied now, and far behind before
        (song((1, {"token": 9, "likely": {9: -0.75, 87: -0.75 - TIE * 1.1}})), 1),  # tied before, not now
        (
            song((1, {"token": 9, "likely": {9: -0.75, 8: -0.75}})),
            1,
        ),  # what came before is not shown any more
        (song((1, {"token": 7, "likely": {7: -0.75, 87: -0.75}})), 1),  # was not shown before
        (song((1, {**TURNED, "logprob": -8.0})), 1),
        (Song(NOTES[:2]), 2),
        (Song((*NOTES, NOTES[0])), 3),
    ],
)
def test_another_song_is_refused_at_its_first_other_token(other: Song, place: int) -> None:
    with pytest.raises(ChangedError, match=f"changed at token {place}$"):
        SONG.require_same(other)


def test_expected_tokens_are_exact() -> None:
    SONG.require_tokens([84, 87, 3])
    for wrong in ([], [84, 87], [84, 87, 3, 3], [84, 9, 3]):
        with pytest.raises(ProtocolError, match="not the one that was expected"):
            SONG.require_tokens(wrong)


def test_a_book_remembers_the_first_song_for_a_door_that_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "canary"
    Songbook(path).require(SONG)
    Songbook(path).require(SONG)
    with pytest.raises(ProtocolError, match="changed at token 0"):
        Songbook(path).require(song((0, {"token": 1})))
    Songbook(path).require(SONG)  # a wrong song was not learned
    assert [found.name for found in tmp_path.iterdir()] == ["canary"]


def test_a_book_without_a_path_remembers_while_it_lives() -> None:
    book = Songbook(None)
    book.require(SONG)
    with pytest.raises(ProtocolError):
        book.require(song((0, {"token": 1})))
    Songbook(None).require(song((0, {"token": 1})))


GOOD = b"[[84,-500,[[84,-500],[1,-2500]]],[87,-250,[]]]"


def test_a_book_reads_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "canary").write_bytes(GOOD)
    Songbook(tmp_path / "canary").require(Song((Note(84, -0.5, {84: -0.5}), Note(87, -0.25, {}))))
    (tmp_path / "canary").unlink()
    Songbook(tmp_path / "canary").require(Song((Note(84, -0.5, {84: -0.5, 1: -2.5}), Note(87, -0.25, {}))))
    assert (tmp_path / "canary").read_bytes() == b"[[84,-500,[[1,-2500],[84,-500]]],[87,-250,[]]]"


@pytest.mark.parametrize(
    "kept",
    [GOOD[:n] for n in range(len(GOOD))]
    + [
        b"{}",
        b"[]",
        b"[[1,2]]",
        b"[[1,2,[],4]]",
        b"[[1,2,3]]",
        b'[["1",2,[]]]',
        b"[[1,2.5,[]]]",
        b"[[1,2,[3]]]",
        b"[[1,2,[[3]]]]",
        b'[[1,2,[[3,"4"]]]]',
        b"[[1,2,[[3,4],[5,6],[7,8],[9,1],[2,3],[4,5],[6,7]]]]",
        b"x" * 20_000,
        GOOD + b"\n[",
    ],
    ids=lambda kept: ascii(kept[:30]),
)
def test_a_damaged_book_is_not_taken_for_an_empty_one(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "canary").write_bytes(kept)
    with pytest.raises(MachineError, match="cannot be understood"):
        Songbook(tmp_path / "canary").require(SONG)


def test_a_book_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"canary: .*: no such file or directory"):
        Songbook(tmp_path / "none" / "canary").require(SONG)
    (tmp_path / "canary").mkdir()
    with pytest.raises(MachineError, match="is a directory"):
        Songbook(tmp_path / "canary").require(SONG)
