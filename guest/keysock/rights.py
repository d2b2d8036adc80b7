"""Who may do what on the local sockets: rules of the measured userdata, looked up by what the kernel says of a caller.

    a caller of a unit       the rule of that unit
    any other                the rule of its uid
    without a rule           Info, Version, and the keys below its own name ("api.service/", "uid-1000/")

A path of a rule that ends in "/" stands for everything below it, "*" for every path, any other for itself alone.
The names of methods are dstack's; docs/formats/keysock.md says which of them stand for our own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from strongroom.errors import FormatError, PolicyError
from strongroom.wire.canonical import JSON

ANY_PATH: Final = "*"
_SHOWN: Final = 64  # characters of a path in a refusal


class Method(StrEnum):
    """What a rule can allow. Each stands for the same thing under other names too."""

    INFO = "Info"
    VERSION = "Version"
    GET_KEY = "GetKey"
    GET_TLS_KEY = "GetTlsKey"
    GET_QUOTE = "GetQuote"
    ATTEST = "Attest"
    SIGN = "Sign"
    VERIFY = "Verify"
    EMIT_EVENT = "EmitEvent"


ALWAYS: Final = frozenset({Method.INFO, Method.VERSION})
DEFAULT: Final = frozenset({Method.GET_KEY})
QUOTING: Final = ALWAYS | {Method.GET_QUOTE, Method.ATTEST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whom the kernel has at the other end of a connection."""

    uid: int
    unit: str | None = None

    @property
    def name(self) -> str:
        return self.unit or f"uid-{self.uid}"

    @property
    def namespace(self) -> str:
        """Where this caller's own keys are: no other caller has this name."""
        return f"{self.name}/"

    @property
    def described(self) -> str:
        return f"unit: {self.unit}" if self.unit else f"uid: {self.uid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    methods: frozenset[Method] = DEFAULT
    paths: tuple[str, ...] = ()  # of keys that are handed out, besides the caller's own
    sign: tuple[str, ...] = ()  # of keys that sign and stay inside, besides the caller's own
    raw_quote: bool = False

    def to_json(self) -> dict[str, JSON]:
        return {
            "methods": [*sorted(self.methods)],
            "paths": [*self.paths],
            "sign": [*self.sign],
            "raw_quote": self.raw_quote,
        }

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        match value:
            case {"methods": list(methods), "paths": list(paths), "sign": list(sign), "raw_quote": bool(raw)}:
                return cls(
                    methods=frozenset(map(_method, methods)),
                    paths=tuple(map(str, paths)),
                    sign=tuple(map(str, sign)),
                    raw_quote=raw,
                )
        raise FormatError("rule: want methods, paths, sign and raw_quote")


NOTHING: Final = Rule(methods=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Every rule there is. `others` is whether a caller without one has keys below its own name."""

    units: Mapping[str, Rule] = field(default_factory=dict)
    uids: Mapping[int, Rule] = field(default_factory=dict)
    others: bool = True

    def of(self, caller: Caller) -> "Granted":
        found = self.uids.get(caller.uid) if caller.unit is None else self.units.get(caller.unit)
        return Granted(caller, found or (Rule() if self.others else NOTHING))

    def names(self, caller: Caller) -> bool:
        """Whether there is a rule for the caller."""
        return caller.uid in self.uids if caller.unit is None else caller.unit in self.units

    @property
    def raw_quote(self) -> bool:
        """Whether anybody may ask for evidence over any bytes."""
        return any(rule.raw_quote for rule in (*self.units.values(), *self.uids.values()))

    def to_json(self) -> dict[str, JSON]:
        return {
            "units": {unit: rule.to_json() for unit, rule in self.units.items()},
            "uids": {str(uid): rule.to_json() for uid, rule in self.uids.items()},
            "others": self.others,
        }

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        match value:
            case {"units": dict(units), "uids": dict(uids), "others": bool(others)}:
                return cls(
                    units={unit: Rule.from_json(rule) for unit, rule in units.items()},
                    uids={int(uid): Rule.from_json(rule) for uid, rule in uids.items()},
                    others=others,
                )
        raise FormatError("rights: want units, uids and others")


@dataclass(frozen=True, slots=True)
class Granted:
    """What one caller may do. Every refusal is a PolicyError that names the rule that is missing."""

    caller: Caller
    rule: Rule

    def require(self, method: Method) -> None:
        if method not in ALWAYS | self.rule.methods:
            raise self._refused(f"may call {method}", f"methods: [{method}]")

    def require_evidence(self) -> None:
        """That the caller may have evidence, in whichever form."""
        if Method.GET_QUOTE not in self.rule.methods:
            self.require(Method.ATTEST)

    def require_path(self, path: str) -> None:
        """That the key at `path` may be handed out."""
        self.require(Method.GET_KEY)
        if not self._covers(self.rule.paths, path):
            raise self._refused(f"has path {path[:_SHOWN]!a}", f"paths: [{path[:_SHOWN]!a}]")

    def require_sign(self, path: str) -> None:
        """That the key at `path` may sign."""
        self.require(Method.SIGN)
        if not self._covers(self.rule.sign, path):
            raise self._refused(f"signs with {path[:_SHOWN]!a}", f"sign: [{path[:_SHOWN]!a}]")

    def require_raw(self, why: str) -> None:
        if not self.rule.raw_quote:
            raise self._refused(f"has raw_quote ({why})", "raw_quote: true")

    def to_json(self) -> dict[str, JSON]:
        said = self.rule.to_json()
        return {
            "caller": self.caller.name,
            "methods": [*sorted(ALWAYS | self.rule.methods)],
            "paths": [
                *([self.caller.namespace] if Method.GET_KEY in self.rule.methods else []),
                *self.rule.paths,
            ],
            "sign": [*([self.caller.namespace] if Method.SIGN in self.rule.methods else []), *self.rule.sign],
            "raw_quote": said["raw_quote"],
        }

    def _covers(self, patterns: Iterable[str], path: str) -> bool:
        return any(
            path.startswith(pattern) if pattern.endswith("/") else pattern in (path, ANY_PATH)
            for pattern in (self.caller.namespace, *patterns)
        )

    def _refused(self, what: str, wanted: str) -> PolicyError:
        return PolicyError(
            f"{self.caller.name}: no rule {what}, want one in strongroom.keys.rules with "
            f"{self.caller.described}, {wanted}"
        )


def _method(name: JSON) -> Method:
    if name not in {*Method}:
        raise FormatError(f"rule: {ascii(name)[:40]} is no method, want one of {', '.join(Method)}")
    return Method(str(name))
