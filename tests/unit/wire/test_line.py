"""Mirrors strongroom/wire/line.py."""

from strongroom.wire.line import sentence


def test_words_of_others_become_one_printable_line() -> None:
    assert sentence("a\n\x1b[31mb\u2028c\u202ed") == "a [31mb c d"


def test_words_of_others_are_bounded() -> None:
    assert len(sentence("x" * 10_000)) == 600
    assert sentence("a b c", most=3) == "a b"
