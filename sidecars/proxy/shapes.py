"""Small checks for values inside a request body. Each gives back what may go on to the engine, or refuses.

A refusal names the field and what was wanted, never what was found: the value may be somebody's prompt.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from strongroom.host.door.refusal import Refusal
from strongroom.wire.canonical import JSON

Check: TypeAlias = Callable[[JSON, str], JSON]


def flag(value: JSON, at: str) -> JSON:
    if not isinstance(value, bool):
        raise Refusal.field(at, "true or false")
    return value


def whole(low: int, high: int) -> Check:
    def check(value: JSON, at: str) -> JSON:
        if type(value) is not int or not low <= value <= high:  # bool is an int: type() on purpose
            raise Refusal.field(at, f"a whole number {low}..{high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    def check(value: JSON, at: str) -> JSON:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Refusal.field(at, f"a number {low:g}..{high:g}")
        return value

    return check


def text(most: int) -> Check:
    def check(value: JSON, at: str) -> JSON:
        if not isinstance(value, str) or len(value) > most:
            raise Refusal.field(at, f"text of at most {most} characters")
        return value

    return check


def one_of(*words: str) -> Check:
    def check(value: JSON, at: str) -> JSON:
        if not isinstance(value, str) or value not in words:
            raise Refusal.field(at, " or ".join(words))
        return value

    return check


def several(each: Check, *, most: int, least: int = 0) -> Check:
    def check(value: JSON, at: str) -> JSON:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise Refusal.field(at, f"a list of {least}..{most}")
        return [each(item, f"{at}[{n}]") for n, item in enumerate(value)]

    return check


def either(*checks: Check, wanted: str) -> Check:
    def check(value: JSON, at: str) -> JSON:
        for one in checks:
            try:
                return one(value, at)
            except Refusal:
                continue
        raise Refusal.field(at, wanted)

    return check


def sized(most: int) -> Check:
    """Any object whose JSON has at most `most` bytes: schemas and the like, which the engine compiles."""

    def check(value: JSON, at: str) -> JSON:
        if not isinstance(value, dict) or len(json.dumps(value)) > most:
            raise Refusal.field(at, f"an object of at most {most} bytes")
        return value

    return check


def members(fields: Mapping[str, Check], *, need: tuple[str, ...] = ()) -> Check:
    """An object of these fields only. A null counts as absent."""

    def check(value: JSON, at: str) -> JSON:
        if not isinstance(value, dict):
            raise Refusal.field(at, "an object")
        given = {key: item for key, item in value.items() if item is not None}
        for key in given:
            if key not in fields:
                raise unknown(f"{at}.{key}")
        for key in need:
            if key not in given:
                raise Refusal.field(f"{at}.{key}", "a value")
        return {key: fields[key](item, f"{at}.{key}") for key, item in given.items()}

    return check


def tagged(variants: Mapping[str, Check]) -> Check:
    """An object whose `type` chooses how it is checked."""

    def check(value: JSON, at: str) -> JSON:
        kind: Any = value.get("type") if isinstance(value, dict) else None
        variant = variants.get(kind) if isinstance(kind, str) else None
        if variant is None:
            raise Refusal.field(f"{at}.type", " or ".join(variants))
        return variant(value, at)

    return check


def unknown(name: str) -> Refusal:
    shown = ascii(name[:80])[1:-1]
    return Refusal(400, "unknown_field", f"field {shown} is not accepted here", param=shown)
