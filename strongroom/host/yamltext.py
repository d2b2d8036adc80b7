"""YAML text to a plain mapping: the part of YAML that means what it looks like, and nothing else.

Text, whole numbers, numbers with a point, true, false, null, lists, mappings. Anchors, aliases, tags,
repeated keys and a second document are refused, so a file cannot unfold, construct, or say two things. Words
such as `yes` and dates stay text. The only module that imports the YAML library.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import yaml

from strongroom.errors import ConfigError

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 16
_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)  # longer digits are a digest, and stay text
_POINT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}

_Events: TypeAlias = Iterator[yaml.Event]


def parse_yaml(text: str | bytes, subject: str, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The mapping in `text`; ConfigError "<subject>: line N: ..." or "<subject>: key.path: ..." otherwise."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > max_bytes:
        raise ConfigError(f"{subject}: {len(data)} bytes, want at most {max_bytes}")
    try:
        decoded = data.decode()
        events = iter(yaml.parse(decoded, Loader=yaml.SafeLoader))
        return _document(events, subject)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{subject}: not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{subject}: {_explain(error)}") from error
    except (ValueError, OverflowError) as error:  # the library's own, for "\\U00110000" and `%YAML 1.9999...`
        raise ConfigError(f"{subject}: an escape or a version out of range, want text as it is") from error


def _document(events: _Events, subject: str) -> dict[str, Any]:
    next(events)  # stream start
    if isinstance(next(events), yaml.StreamEndEvent):
        raise ConfigError(f"{subject}: empty, want a mapping")
    first = next(events)
    if not isinstance(first, yaml.MappingStartEvent):
        raise ConfigError(f"{subject}: {_line(first)}: want a mapping")
    value: dict[str, Any] = _value(first, events, subject, "", 1)
    next(events)  # document end
    if not isinstance(after := next(events), yaml.StreamEndEvent):
        raise ConfigError(f"{subject}: {_line(after)}: a second document, want one")
    return value


def _value(event: yaml.Event, events: _Events, subject: str, at: str, depth: int) -> Any:
    where = f"{subject}: {at + ': ' if at else ''}{_line(event)}"
    if isinstance(event, yaml.AliasEvent):
        raise ConfigError(f"{where}: an alias, want the value itself")
    if not isinstance(event, yaml.NodeEvent) or event.anchor is not None:
        raise ConfigError(f"{where}: an anchor, want the value itself")
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        raise ConfigError(f"{where}: tag {event.tag[:64]!a}, want none")
    if isinstance(event, yaml.ScalarEvent):
        if _SURROGATE.search(event.value):
            raise ConfigError(f"{where}: an escape that is half a character, want text as it is")
        return _scalar(event)
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(event, yaml.SequenceStartEvent):
        return _sequence(events, subject, at, depth)
    return _mapping(events, subject, at, depth)


def _sequence(events: _Events, subject: str, at: str, depth: int) -> list[Any]:
    items: list[Any] = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        items.append(_value(event, events, subject, f"{at}[{len(items)}]", depth + 1))
    return items


def _mapping(events: _Events, subject: str, at: str, depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _value(event, events, subject, at, depth + 1)
        # A key is whatever was written: `123` and `null` are not names anyone meant.
        if not isinstance(key, str) or not key:
            raise ConfigError(f"{subject}: {at + ': ' if at else ''}{_line(event)}: a key is not text")
        path = f"{at}.{key}" if at else key
        if key in members:
            raise ConfigError(f"{subject}: {_printable(path)}: {_line(event)}: the key appears twice")
        members[key] = _value(next(events), events, subject, _printable(path), depth + 1)
    return members


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _POINT.fullmatch(text) else text


def _printable(path: str) -> str:
    return path if path.isprintable() and len(path) <= 200 else ascii(path[:200])


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark is not None else "line ?"


def _explain(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem = (error.problem or "not YAML").replace("\n", " ")
        return f"line {error.problem_mark.line + 1}: {problem}"
    return "not YAML"
