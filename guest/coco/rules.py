"""Who may have what through the local REST: rules of the measured userdata, by what the kernel says of a caller.

    a caller of a unit      the rule of that unit
    any other               the rule of its uid; so is whoever comes over loopback, where the kernel tells no more
    without a rule          nothing but what kind of machine this is

A resource of a rule is REPOSITORY/TYPE/TAG, or the first parts of it and a "/", which stands for everything below, or
"*". What a rule allows besides resources has a name: evidence, over so few bytes that they speak for no key; aael; and
two that make their holder as good as the machine itself. raw_evidence is evidence over any bytes, and token is that of
the broker with the key it speaks for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from guest.keysock.rights import Caller
from strongroom.errors import FormatError, PolicyError
from strongroom.wire.canonical import JSON

ANY: Final = "*"
_SHOWN: Final = 80  # characters of a resource in a refusal


class Right(StrEnum):
    """What a rule can allow besides resources."""

    TOKEN = "token"
    EVIDENCE = "evidence"
    RAW_EVIDENCE = "raw_evidence"
    AAEL = "aael"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    resources: tuple[str, ...] = ()
    allow: frozenset[Right] = frozenset()

    def covers(self, resource: str) -> bool:
        """Whether it is for this resource, REPOSITORY/TYPE/TAG."""
        return any(
            resource.startswith(pattern) if pattern.endswith("/") else pattern in (resource, ANY)
            for pattern in self.resources
        )

    def to_json(self) -> dict[str, JSON]:
        return {"resources": [*self.resources], "allow": [*sorted(self.allow)]}

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        match value:
            case {"resources": list(resources), "allow": list(allow), **rest} if not rest:
                return cls(
                    resources=tuple(map(str, resources)),
                    allow=frozenset(Right(str(right)) for right in allow),
                )
        raise FormatError("coco rule: want resources and allow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Every rule there is."""

    units: Mapping[str, Rule] = field(default_factory=dict)
    uids: Mapping[int, Rule] = field(default_factory=dict)

    def of(self, caller: Caller) -> "Granted":
        found = self.uids.get(caller.uid) if caller.unit is None else self.units.get(caller.unit)
        return Granted(caller, found or Rule())

    def covers(self, resource: str) -> bool:
        """Whether anybody may have this resource."""
        return any(rule.covers(resource) for rule in self)

    def allows(self, right: Right) -> bool:
        """Whether anybody may."""
        return any(right in rule.allow for rule in self)

    def __iter__(self) -> Iterator[Rule]:
        return iter((*self.units.values(), *self.uids.values()))

    def to_json(self) -> dict[str, JSON]:
        return {
            "units": {unit: rule.to_json() for unit, rule in self.units.items()},
            "uids": {str(uid): rule.to_json() for uid, rule in self.uids.items()},
        }

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        match value:
            case {"units": dict(units), "uids": dict(uids), **rest} if not rest:
                return cls(
                    units={unit: Rule.from_json(rule) for unit, rule in units.items()},
                    uids={int(uid): Rule.from_json(rule) for uid, rule in uids.items()},
                )
        raise FormatError("coco rules: want units and uids")


@dataclass(frozen=True, slots=True)
class Granted:
    """What one caller may have. Every refusal is a PolicyError that names the rule that is missing."""

    caller: Caller
    rule: Rule

    def require(self, right: Right) -> None:
        if right not in self.rule.allow:
            raise self._refused(f"allows {right}", f"allow: [{right}]")

    def require_resource(self, resource: str) -> None:
        if not self.rule.covers(resource):
            shown = ascii(resource[:_SHOWN])
            raise self._refused(f"lists resource {shown}", f"resources: [{shown}]")

    def _refused(self, what: str, wanted: str) -> PolicyError:
        return PolicyError(
            f"{self.caller.name}: no rule {what}, want one in strongroom.coco.rules with "
            f"{self.caller.described}, {wanted}"
        )
