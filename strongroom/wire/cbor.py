"""CBOR with exactly one encoding (RFC 8949 section 4.2.1), for the same values that canonical JSON has, and bytes.

The library knows tags that compile expressions, parse mail or share references. None of them is a value here,
and each is refused before it acts; whatever else has a second spelling is refused because it does not pack to
the same bytes again.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

import cbor2

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, b64u

CBOR: TypeAlias = "bool | int | str | bytes | list[CBOR] | dict[str, CBOR] | None"

_MAX_INTEGER: Final = 2**64 - 1
_BUILT_IN_TAGS: Final = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100),
    *(256, 258, 260, 261, 1004, 43000, 55799),
)


def pack_cbor(value: CBOR) -> bytes:
    """The one canonical encoding of `value`; FormatError for what is not one of our values."""
    return cbor2.dumps(_ours(value, "cbor"), canonical=True)


def parse_cbor(data: bytes, subject: str, *, max_bytes: int = 1 << 20, max_depth: int = 16) -> CBOR:
    """The value in `data`; FormatError for tags, floats, indefinite lengths, repeated keys, depth, size, any
    encoding but the canonical one, and anything left over."""
    if len(data) > max_bytes:
        raise FormatError(f"{subject}: {len(data)} bytes, want at most {max_bytes}")
    try:
        decoded = cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=max_depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORDecodeError, FormatError) as error:
        raise FormatError(f"{subject}: not CBOR we can read") from error
    value = _ours(decoded, subject)
    if pack_cbor(value) != data:
        raise FormatError(f"{subject}: not in canonical form")
    return value


def as_json(value: CBOR) -> JSON:
    """The same value for canonical JSON: bytes become base64url text."""
    if isinstance(value, bytes):
        return b64u(value)
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value


def _ours(value: Any, subject: str) -> CBOR:
    if value is None or isinstance(value, bool | str | bytes):
        return value
    if isinstance(value, int) and abs(value) <= _MAX_INTEGER:
        return value
    if isinstance(value, list):
        return [_ours(item, subject) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _ours(item, subject) for key, item in value.items()}
    raise FormatError(
        f"{subject}: holds a {type(value).__name__}, want text, bytes, whole numbers, lists or maps"
    )


def _refuse_tag(*_: object) -> NoReturn:
    raise FormatError("cbor: a tag, want none")


_NO_TAGS: Final[Mapping[int, Callable[..., NoReturn]]] = MappingProxyType(
    dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)
)
