"""JSON bodies read fast, and exactly as strictly as parse_json() reads them.

orjson takes the last of two equal keys, whole numbers beyond 64 bits as fractions, and any depth up to its own. So what
it gives is believed only where the text itself shows that none of that can be: as many members as colons outside of
strings, no number of that length, few enough brackets. Everything else is read again by parse_json(), whose word holds.
"""

import json
import re
from typing import Final

import orjson

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, check_depth, parse_json

# whole numbers that may not fit in 64 bits, numbers that may not be finite, and a zero with a sign
_DELICATE: Final = re.compile(rb"(?<![.0-9])[0-9]{16}|[0-9][eE]\+?[0-9]|-0(?![.0-9])")
_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_LONG: Final = b"0" * 16


def read_json(data: bytes, subject: str, *, max_bytes: int, max_depth: int, max_values: int) -> JSON:
    """The value in `data`, numbers with a fraction among it. FormatError as of parse_json()."""
    if len(data) <= max_bytes and _few(data, max_values):
        # without escaped quotes every second part is a string: an escape stands in strings only
        outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
        if _shallow(outside, max_depth) and not _delicate(outside):
            try:
                value: JSON = orjson.loads(data)
            except ValueError:
                pass  # the slow way knows the reason
            else:
                if _members(value) == outside.count(b":"):
                    return value
    return parse_json(
        data, subject, max_bytes=max_bytes, max_depth=max_depth, max_values=max_values, floats=True
    )


def _few(data: bytes, values: int) -> bool:
    """Whether there are few enough of what parse_json() counts. There is at most one for each byte."""
    return len(data) <= values or sum(map(data.count, (b",", b"[", b"{"))) <= values


def _shallow(outside: bytes, depth: int) -> bool:
    if outside.count(b"{") + outside.count(b"[") <= depth:
        return True
    try:
        check_depth(outside, "", depth)
    except FormatError:
        return False  # or no JSON, where escapes stand elsewhere too: the slow way knows which
    return True


def _delicate(outside: bytes) -> bool:
    shape = outside.translate(_DIGITS)
    if _LONG in shape or b"0e" in shape or b"-0" in shape:
        return _DELICATE.search(outside) is not None
    return False


def _members(value: JSON) -> int:
    """Of all the objects in it together. Its depth was looked at before."""
    if type(value) is dict:
        found = len(value)
        for item in value.values():
            if type(item) is dict or type(item) is list:
                found += _members(item)
        return found
    found = 0
    if type(value) is list:
        for item in value:
            if type(item) is dict or type(item) is list:
                found += _members(item)
    return found


def read_object(data: bytes) -> dict[str, JSON] | None:
    """The object that an engine of ours wrote, or None where it is no object: it writes no key twice, and no depth.

    For what is written anew before anybody else reads it.
    """
    try:
        value: JSON = orjson.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write_json(value: JSON) -> bytes:
    """As short as it can be, in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a whole number below what 64 bits hold
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
