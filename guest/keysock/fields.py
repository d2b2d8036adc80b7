"""The members of a request, by the rules of dstack's interface: what is missing has a default, what is unknown is none
of our business, and null stands for nothing but an optional number.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, parse_json, unb64u

MAX_TEXT: Final = 1024  # characters of a path, a purpose or a name
_MAX_QUERY: Final = 64  # members
_MAX_VALUES: Final = 1024  # of a body
_YEAR_9999: Final = 253_402_300_799


class Fields:
    def __init__(self, members: Mapping[str, JSON]) -> None:
        self._members = members

    @classmethod
    def of_body(cls, body: bytes) -> "Fields":
        """An empty body is an object without members."""
        value = parse_json(body, "request", max_bytes=len(body), max_values=_MAX_VALUES) if body else {}
        if not isinstance(value, dict):
            raise FormatError("request: not a json object")
        return cls(value)

    @classmethod
    def of_query(cls, query: str) -> "Fields":
        """The members of a query string, all of them text; one that comes twice is a list."""
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY, errors="strict")
        except ValueError:
            raise FormatError(f"query: not UTF-8, or more than {_MAX_QUERY} members") from None
        members: dict[str, JSON] = {}
        for name, value in pairs:
            before = members.get(name)
            members[name] = (
                value if before is None else [*(before if isinstance(before, list) else [before]), value]
            )
        return cls(members)

    def only(self, *names: str) -> None:
        """FormatError for a member that is none of these: for our own interface, which has no old clients."""
        if unknown := sorted(self._members.keys() - {*names}):
            raise FormatError(
                f"{unknown[0][:40]!a}: no member of this request, want {', '.join(names) or 'none'}"
            )

    def has(self, name: str) -> bool:
        return name in self._members

    def text(self, name: str, default: str = "", *, most: int = MAX_TEXT) -> str:
        value = self._members.get(name, default)
        if not isinstance(value, str):
            raise FormatError(f"{name}: got {_shown(value)}, want text")
        if len(value) > most:
            raise FormatError(f"{name}: {len(value)} characters, want at most {most}")
        return value

    def texts(self, name: str, *, most: int) -> tuple[str, ...]:
        value = self._members.get(name, [])
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise FormatError(f"{name}: got {_shown(value)}, want a list of text")
        if len(items) > most:
            raise FormatError(f"{name}: {len(items)} items, want at most {most}")
        for item in map(str, items):
            if len(item) > MAX_TEXT:
                raise FormatError(f"{name}: an item of {len(item)} characters, want at most {MAX_TEXT}")
        return tuple(map(str, items))

    def hex(self, name: str) -> bytes:
        """Bytes in hex, perhaps behind one 0x."""
        text = self.text(name, most=1 << 30)
        try:
            octets = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            raise FormatError(f"{name}: not hex") from None
        if 2 * len(octets) != len(text.removeprefix("0x")):  # fromhex skips blanks
            raise FormatError(f"{name}: not hex")
        return octets

    def b64u(self, name: str) -> bytes:
        return unb64u(self.text(name, most=1 << 30), name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._members.get(name, default)
        if value in ("true", "1", "false", "0"):
            return value in ("true", "1")
        if not isinstance(value, bool):
            raise FormatError(f"{name}: got {_shown(value)}, want true or false")
        return value

    def whole(self, name: str) -> int | None:
        value = self._members.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
            value = int(value)
        if value is not None and (type(value) is not int or value < 0):
            raise FormatError(f"{name}: got {_shown(value)}, want a whole number")
        return value

    def moment(self, name: str) -> datetime | None:
        """Unix seconds."""
        seconds = self.whole(name)
        if seconds is None:
            return None
        if seconds > _YEAR_9999:
            raise FormatError(f"{name}: {seconds} is after the year 9999")
        return datetime.fromtimestamp(seconds, UTC)


def _shown(value: JSON) -> str:
    return "null" if value is None else type(value).__name__
