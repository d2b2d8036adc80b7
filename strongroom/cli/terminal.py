"""Text fit for a person's terminal: nothing from elsewhere moves the cursor, and columns line up."""

import sys
import unicodedata
from collections.abc import Sequence
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})  # controls, bidi marks, line breaks and such


def one_line(text: str) -> str:
    """The text with every control, line break and invisible mark written as an escape."""
    return "".join(map(_visible, text))


def answer_text(text: str) -> str:
    """A model's words as they may reach a terminal: newlines and tabs stay, every other control is escaped.

    A model repeats what others put before it; an escape sequence among that must not reach the screen.
    Joiners and direction marks stay too: scripts and emoji need them.
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c) == "Cf" else _visible(c) for c in text)


def table(rows: Sequence[Sequence[str]], *, widest: int = 44) -> str:
    """Rows as aligned columns, each cell one line of at most `widest` characters but the last."""
    cells = [[_cut(one_line(cell), widest) for cell in row[:-1]] + [one_line(row[-1])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(map(str.rstrip, lines))


def is_terminal() -> bool:
    return sys.stdout.isatty()


def _visible(char: str) -> str:
    if unicodedata.category(char) not in _UNSEEN:
        return char
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def _cut(text: str, widest: int) -> str:
    return text if len(text) <= widest else f"{text[: widest - 1]}…"
