"""A value nobody has checked yet, with its key path: it leaves only through a typed reading."""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from strongroom.errors import ConfigError

_HEX: Final = re.compile(r"[0-9a-f]*", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Raw:
    """Every reading returns the value in its type, or raises ConfigError with the path, found and wanted."""

    value: Any
    at: str

    def mapping(
        self, keys: AbstractSet[str], *, required: AbstractSet[str] = frozenset()
    ) -> dict[str, "Raw"]:
        if not isinstance(self.value, Mapping):
            raise self._refused("a mapping")
        for key in self.value:
            if key not in keys:
                raise ConfigError(f"{self.at}.{_show(key)}: unknown key")
        for key in sorted(required):
            if key not in self.value:
                raise ConfigError(f"{self.at}.{key}: missing")
        return {key: Raw(member, f"{self.at}.{key}") for key, member in self.value.items()}

    def items(self, *, empty: bool = False) -> list["Raw"]:
        if not isinstance(self.value, Sequence) or isinstance(self.value, str | bytes):
            raise self._refused("a list")
        if not self.value and not empty:
            raise ConfigError(f"{self.at}: empty, want at least one")
        return [Raw(item, f"{self.at}[{n}]") for n, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not 0 < len(self.value) <= 256 or not self.value.isprintable():
            raise self._refused("one line of text")
        return self.value

    def one_of(self, choices: Sequence[str]) -> str:
        if not isinstance(self.value, str) or self.value not in choices:
            raise self._refused(f"one of {', '.join(choices)}")
        return self.value

    def hex(self, size: int) -> bytes:
        """`size` bytes written as lowercase hex."""
        text = self.value
        if not isinstance(text, str) or len(text) != 2 * size or not _HEX.fullmatch(text):
            raise self._refused(f"{2 * size} lowercase hex digits")
        return bytes.fromhex(text)

    def whole(self, most: int) -> int:
        if type(self.value) is not int or not 0 <= self.value <= most:  # bool is an int: type() on purpose
            raise self._refused(f"a whole number 0..{most}")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self._refused("true or false")
        return self.value

    def day(self) -> date:
        if not isinstance(self.value, str) or not _DAY.fullmatch(self.value):
            raise self._refused("a date such as 2026-01-31")
        try:
            return date.fromisoformat(self.value)
        except ValueError as error:
            raise self._refused("a date such as 2026-01-31") from error

    def _refused(self, want: str) -> ConfigError:
        return ConfigError(f"{self.at}: got {_show(self.value)}, want {want}")


def _show(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and len(value) <= 100:
        return value or "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else ascii(value)[:100]
