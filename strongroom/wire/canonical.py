"""JSON with exactly one encoding (RFC 8785), strict reading of JSON, and strict base64.

Numbers are whole and below 2**53 in what we write, so no two implementations can disagree about them.
"""

import base64
import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from strongroom.errors import FormatError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MAX_SAFE_INTEGER: Final = 2**53 - 1  # RFC 8785 3.2.2.3: beyond it, readers disagree
MAX_VALUES: Final = 1 << 18  # in one text, unless its reader allows more: a tenth of a second
_MAX_READ_INTEGER: Final = 2**64 - 1

# Strings vanish before brackets are counted. An unclosed string runs to the end (`"?`), so that a hostile
# input cannot make the expression start over at every quotation mark.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_LONG: Final = re.compile(rb"[0-9]{16}")  # digits: what has fewer is below any bound of ours
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
_STD_ALPHABET: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
_URL_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def pack_json(value: JSON) -> bytes:
    """The one canonical encoding of `value`; FormatError for floats, large numbers and lone surrogates."""
    text = json.dumps(_canonical(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise FormatError("json: text holds a lone surrogate, want unicode") from error


def parse_json(
    data: bytes,
    subject: str,
    *,
    max_bytes: int = 1 << 20,
    max_depth: int = 16,
    max_values: int = MAX_VALUES,
    floats: bool = False,
) -> JSON:
    """The value in `data`; FormatError for duplicate keys, NaN, depth, size, or anything left over.

    Numbers with a fraction or an exponent are refused unless `floats` says the format has them. Of the values in it
    there are at most `max_values`, where punctuation inside text counts too: it bounds time and memory.
    """
    if len(data) > max_bytes:
        raise FormatError(f"{subject}: {len(data)} bytes, want at most {max_bytes}")
    _check_count(data, subject, max_values)
    check_depth(data, subject, max_depth)
    try:
        text = data.decode()
        value: JSON = json.loads(
            text,
            object_pairs_hook=_unique_keys(subject),
            parse_constant=_refuse(subject, "want a finite number"),
            parse_float=_finite(subject) if floats else _refuse(subject, "want a whole number"),
            parse_int=_bounded(subject) if _LONG.search(data) else None,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # an escape can name a lone surrogate
    except UnicodeError as error:
        raise FormatError(f"{subject}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{subject}: not JSON at byte {error.pos}: {error.msg.lower()}") from error
    return value


def b64u(data: bytes) -> str:
    """base64url without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text: str, subject: str) -> bytes:
    """The bytes of unpadded base64url; any other spelling of the same bytes is a FormatError."""
    if not _URL_ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        raise FormatError(f"{subject}: not unpadded base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64u(data) != text:
        raise FormatError(f"{subject}: base64url has stray bits, want the canonical spelling")
    return data


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode()


def unb64(text: str, subject: str) -> bytes:
    """The bytes of padded standard base64; any other spelling of the same bytes is a FormatError."""
    if not _STD_ALPHABET.fullmatch(text) or len(text) % 4:
        raise FormatError(f"{subject}: not padded base64")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise FormatError(f"{subject}: not padded base64") from error
    if b64(data) != text:
        raise FormatError(f"{subject}: base64 has stray bits, want the canonical spelling")
    return data


def _canonical(value: JSON) -> JSON:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise FormatError(f"json: number {value} is beyond 2**53, want text for it")
        return int(value)
    if isinstance(value, list):
        return value if _is_octets(value) else [_canonical(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise FormatError("json: a key is not text")
        # RFC 8785 3.2.3 sorts by UTF-16 code units, which differs from code points above the BMP.
        ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
        return {key: _canonical(item) for key, item in ordered}
    raise FormatError(f"json: a {type(value).__name__} has no canonical form")


def _is_octets(value: list[JSON]) -> bool:
    """Whether it is a list of small numbers, as some write bytes: there is nothing to put in order, or to refuse."""
    try:
        bytes(value)  # type: ignore[arg-type]  # which is the question
    except (TypeError, ValueError):
        return False
    return True


def _check_count(data: bytes, subject: str, max_values: int) -> None:
    count = sum(map(data.count, (b",", b"[", b"{")))
    if count > max_values or data.count(b'"') > 4 * (max_values + 1):  # a key and a value, both in quotes
        raise FormatError(f"{subject}: more than {max_values} values")


def check_depth(data: bytes, subject: str, max_depth: int) -> None:
    """FormatError for JSON that is nested deeper: no parser of the interpreter's own survives every depth."""
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            raise FormatError(f"{subject}: nested deeper than {max_depth} levels")
        if depth < 0:
            return  # no JSON, and read no further than here


def _unique_keys(subject: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise FormatError(f"{subject}: key {key[:64]!a} appears twice")
            value[key] = item
        return value

    return build


def _refuse(subject: str, want: str) -> Callable[[str], Any]:
    def refuse(text: str) -> Any:
        raise FormatError(f"{subject}: number {text[:32]}, {want}")

    return refuse


def _finite(subject: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise FormatError(f"{subject}: number {text[:32]}, want a finite number")
        return value

    return read


def _bounded(subject: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        # The length comes first: int() of a very long text is slow, and raises past 4300 digits.
        if len(text) > 20 or abs(value := int(text)) > _MAX_READ_INTEGER:
            raise FormatError(f"{subject}: number {text[:32]}, want at most 64 bits")
        return value

    return read
