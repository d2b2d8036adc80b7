"""Mirrors strongroom/appraise/raw.py."""

from collections.abc import Callable
from datetime import date
from typing import Any, Final

import pytest

from strongroom.appraise.raw import Raw
from strongroom.errors import ConfigError

READINGS: Final[dict[str, Callable[[Raw], Any]]] = {
    "mapping": lambda raw: raw.mapping({"a"}),
    "items": Raw.items,
    "text": Raw.text,
    "one_of": lambda raw: raw.one_of(["a", "b"]),
    "hex": lambda raw: raw.hex(2),
    "whole": lambda raw: raw.whole(9),
    "flag": Raw.flag,
    "day": Raw.day,
}


def test_good_values_come_out_typed() -> None:
    assert Raw({"a": 1}, "x").mapping({"a", "b"})["a"] == Raw(1, "x.a")
    assert Raw([1, 2], "x").items()[1] == Raw(2, "x[1]")
    assert Raw([], "x").items(empty=True) == []
    assert Raw("t", "x").text() == "t"
    assert Raw("a", "x").one_of(["a", "b"]) == "a"
    assert Raw("00ff", "x").hex(2) == b"\0\xff"
    assert Raw(9, "x").whole(9) == 9
    assert Raw(True, "x").flag() is True
    assert Raw("2024-02-29", "x").day() == date(2024, 2, 29)


@pytest.mark.parametrize(
    ("reading", "value", "why"),
    [
        ("mapping", [], "x: got a list, want a mapping"),
        ("mapping", {"b": 1}, "x.b: unknown key"),
        ("mapping", {1: 1}, "x.1: unknown key"),
        ("items", "ab", "x: got ab, want a list"),
        ("items", {}, "x: got a mapping, want a list"),
        ("items", [], "x: empty, want at least one"),
        ("text", "", "x: got nothing, want one line of text"),
        ("text", "a\nb", r"x: got 'a\\nb', want one line of text"),
        ("text", "a" * 257, "want one line of text"),
        ("text", 1, "x: got 1, want one line of text"),
        ("one_of", "c", "x: got c, want one of a, b"),
        ("one_of", ["a"], "x: got a list, want one of a, b"),
        ("hex", "00f", "x: got 00f, want 4 lowercase hex digits"),
        ("hex", "00FF", "x: got 00FF, want 4 lowercase hex digits"),
        ("hex", 1234, "x: got 1234, want 4 lowercase hex digits"),
        ("hex", "00ff\n", "want 4 lowercase hex digits"),
        ("whole", 10, "x: got 10, want a whole number 0..9"),
        ("whole", -1, "x: got -1, want"),
        ("whole", True, "x: got True, want"),
        ("whole", 1.0, "x: got 1.0, want"),
        ("whole", None, "x: got None, want"),
        ("flag", 1, "x: got 1, want true or false"),
        ("flag", "true", "x: got true, want true or false"),
        ("day", "2026-02-30", "x: got 2026-02-30, want a date such as 2026-01-31"),
        ("day", "20260131", "x: got 20260131, want a date"),
        ("day", date(2026, 1, 31), "want a date"),
    ],
)
def test_bad_values_are_refused_with_path_found_and_wanted(reading: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^{why}" if why.startswith("x") else why):
        READINGS[reading](Raw(value, "x"))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^x\.b: missing$"):
        Raw({"a": 1}, "x").mapping({"a", "b"}, required={"a", "b"})
