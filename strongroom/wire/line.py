"""Words of others inside a line of ours: in an error, a journal, an audit, on the console."""

from typing import Final

MAX_SENTENCE: Final = 600  # characters


def sentence(text: str, *, most: int = MAX_SENTENCE) -> str:
    """`text` as one printable line of at most `most` characters: no line break, control or direction mark."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 2 * most])
    return " ".join(printable.split())[:most]
