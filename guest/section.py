"""Userdata's mappings, read key by key: what nobody asked for is an error, and every error names the key path."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from guest import bounds
from strongroom.errors import ConfigError

T = TypeVar("T")


class Section:
    """One mapping of the document; keys nobody asked for are errors at end()."""

    def __init__(self, raw: Mapping[str, Any], at: str) -> None:
        self._raw, self._at, self._asked = raw, at, set[str]()

    def value(self, key: str, check: Callable[[object, str], T], *, default: T | None = None) -> T:
        self._asked.add(key)
        if key not in self._raw:
            if default is None:
                raise ConfigError(f"{self.path(key)}: missing")
            return default
        return check(self._raw[key], self.path(key))

    def has(self, key: str) -> bool:
        return key in self._raw

    def section(self, key: str, *, required: bool = True) -> "Section":
        self._asked.add(key)
        raw = self._raw.get(key, None if required else {})
        if raw is None and key not in self._raw:
            raise ConfigError(f"{self.path(key)}: missing")
        return Section(mapping(raw, self.path(key)), self.path(key))

    def path(self, key: str) -> str:
        return key if self._at == "userdata" else f"{self._at}.{key}"

    def end(self) -> None:
        if unknown := sorted(self._raw.keys() - self._asked):
            raise ConfigError(
                f"{bounds.shown(self.path(unknown[0]))[1:-1]}: unknown key, want one of "
                f"{', '.join(sorted(self._asked))}"
            )


def mapping(raw: object, at: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{at}: got {bounds.shown(raw)}, want a mapping")
    return raw


def list_of(limit: int) -> Callable[[object, str], list[object]]:
    def check(value: object, at: str) -> list[object]:
        if not isinstance(value, list) or len(value) > limit:
            raise ConfigError(f"{at}: got {bounds.shown(value)}, want a list of at most {limit}")
        return value

    return check


def distinct(values: Iterable[str], at: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"{at} {value} appears twice, want each once")
        seen.add(value)


def by_caller(
    rules: list[object], at: str, read: Callable[[Section], T]
) -> tuple[Mapping[str, T], Mapping[int, T]]:
    units: dict[str, T] = {}
    uids: dict[int, T] = {}
    for n, item in enumerate(rules):
        raw = Section(mapping(item, f"{at}[{n}]"), f"{at}[{n}]")
        if raw.has("unit") == raw.has("uid"):
            raise ConfigError(f"{raw.path('unit')}: want exactly one of unit and uid")
        if raw.has("unit"):
            unit = raw.value("unit", bounds.UNIT.check)
            distinct((*units, unit), f"{at}: unit")
            units[unit] = read(raw)
        else:
            uid = raw.value("uid", bounds.UID.check)
            distinct(map(str, (*uids, uid)), f"{at}: uid")
            uids[uid] = read(raw)
    return units, uids
