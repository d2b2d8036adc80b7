"""TOML with bounds. The standard reader recurses into what is nested, and is quadratic in the parts of a key.

So nesting and dots are counted before it sees the text, outside of strings and comments. What is refused here nobody
writes by hand.
"""

import re
import tomllib
from typing import Any, Final

from strongroom.errors import FormatError
from strongroom.wire.line import sentence

MAX_DEPTH: Final = 16  # brackets within brackets
MAX_DOTS: Final = 64  # of one line: parts of a key, or fractions in a list
_MAX_REASON: Final = 120  # characters

# From left to right, each to its end or to the end of the text: no quotation mark makes the search start over.
_QUIET: Final = re.compile(
    r"""
      \"\"\"(?:[^\\]|\\.)*?(?:\"{3,5}|\Z)
    | '''.*?(?:'{3,5}|\Z)
    | "(?:[^"\\\n]|\\[^\n])*+"?
    | '[^'\n]*+'?
    | \#[^\n]*+
    """,
    re.DOTALL | re.VERBOSE,
)
_BRACKETS: Final = re.compile(r"[\[\]{}]")


def parse_toml(text: str, subject: str, *, max_bytes: int) -> dict[str, Any]:
    """The table in `text`; FormatError for what is no TOML 1.0, too long or too deep. Dates become `datetime`."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise FormatError(f"{subject}: text holds a lone surrogate, want unicode") from None
    if size > max_bytes:
        raise FormatError(f"{subject}: {size} bytes, want at most {max_bytes}")
    _check_shape(_QUIET.sub("", text), subject)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise FormatError(f"{subject}: not TOML: {sentence(str(error).lower(), most=_MAX_REASON)}") from None


def _check_shape(loud: str, subject: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(loud):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise FormatError(f"{subject}: nested deeper than {MAX_DEPTH} levels")
    if any(line.count(".") > MAX_DOTS for line in loud.split("\n")):
        raise FormatError(f"{subject}: more than {MAX_DOTS} dots in a line")
