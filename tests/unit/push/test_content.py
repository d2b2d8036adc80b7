"""Mirrors strongroom/push/content.py: every byte has one place."""

import random

import pytest

from strongroom.errors import FormatError
from strongroom.push.content import Content, Piece, Span


def test_files_lie_one_behind_the_other() -> None:
    content = Content([3, 0, 5, 0])
    assert content.size == 8
    assert [content.start(n) for n in range(5)] == [0, 3, 3, 8, 8]
    assert list(content.pieces(Span(0, 8))) == [Piece(0, 0, 3), Piece(2, 0, 5)]
    assert list(content.pieces(Span(2, 4))) == [Piece(0, 2, 1), Piece(2, 0, 1)]
    assert list(content.pieces(Span(3, 4))) == [Piece(2, 0, 1)]


def test_neighbours_make_one_span() -> None:
    content = Content([3, 0, 5, 2])
    assert content.spans([0, 1, 2]) == (Span(0, 8),)
    assert content.spans([0, 3]) == (Span(0, 3), Span(8, 10))
    assert content.spans([1]) == ()
    assert content.spans([]) == ()


@pytest.mark.parametrize(("start", "end"), [(0, 0), (2, 1), (-1, 1)])
def test_a_span_holds_a_byte(start: int, end: int) -> None:
    with pytest.raises(FormatError, match="holds no byte"):
        Span(start, end)


def test_nothing_lies_past_the_end() -> None:
    with pytest.raises(FormatError, match="past the end at 8"):
        list(Content([8]).pieces(Span(7, 9)))


def test_pieces_of_any_cut_are_the_whole() -> None:
    chance = random.Random(7)
    for _ in range(200):
        files = [bytes(chance.randbytes(chance.choice([0, 0, 1, 5, 20]))) for _ in range(6)]
        content, whole = Content([len(file) for file in files]), b"".join(files)
        at, found = 0, b""
        while at < len(whole):
            end = min(len(whole), at + chance.randint(1, 9))
            for piece in content.pieces(Span(at, end)):
                found += files[piece.file][piece.offset : piece.offset + piece.length]
            at = end
        assert found == whole
