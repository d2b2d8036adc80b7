"""Mirrors strongroom/cli/terminal.py."""

import pytest

from strongroom.cli.terminal import answer_text, one_line, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 日本", "plain, ünïcode, 日本"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202ecba\u2028", "abc\\u202ecba\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_an_answer_keeps_its_lines_and_loses_its_escapes() -> None:
    assert answer_text("a\n\tb\x1b[31mc\x9b\r") == "a\n\tb\\x1b[31mc\\x9b\\r"
    assert answer_text("👩\u200d🚀") == "👩\u200d🚀"


def test_table_lines_up_and_cuts_all_but_the_last_column() -> None:
    assert table([("a", "bb", "c"), ("aaa", "b" * 9, "c" * 9)], widest=5) == (
        "a    bb     c\naaa  bbbb…  ccccccccc"
    )
    assert table([("a\n", "b")]) == "a\\n  b"
