"""What a verifier accepts: reference values and floors, read from a plain mapping into one frozen value.

    version: 1
    measurements: [{name: NAME, value: HEX96, from: DATE?, until: DATE?}]    whole days in UTC, both included
    host_data: [HEX64, ...] or the word any
    minimum_tcb: {fmc?, bootloader?, tee?, snp?, microcode?}                 default: no floor
    products: [Genoa, Turin]                                                 default; Milan only if named
    vmpl: [0]                                                                default
    require_alias_check: true                                                default
    vlek_providers: [CSP_ID, ...]                                            default: no VLEK is accepted
    allow_debug: false                                                       the only value there is
    insecure_simulated_roots: [HEX64, ...]                                   default: none
    model: {root: HEX64?, minimum_epoch: N?}                                 default: any
    engine: {versions: [TEXT, ...]}                                          default: any
    gpus: 0                                                                  default

An unknown key and an empty list are errors: a policy that checks nothing must not look like one that does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Final, Self

from strongroom.appraise.raw import Raw
from strongroom.errors import ConfigError
from strongroom.verify.roots import PRODUCTION, Roots

PRODUCTS: Final = ("Milan", "Genoa", "Turin")
_TCB_COMPONENTS: Final = ("fmc", "bootloader", "tee", "snp", "microcode")
_NO_FLOOR: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue:
    """One accepted launch measurement, and the days (UTC, both included) on which it is accepted."""

    name: str
    value: bytes
    first_day: date | None = None
    last_day: date | None = None

    def holds_on(self, day: date) -> bool:
        started = self.first_day is None or self.first_day <= day
        return started and (self.last_day is None or day <= self.last_day)

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({"name", "value", "from", "until"}, required={"name", "value"})
        return cls(
            name=members["name"].text(),
            value=members["value"].hex(48),
            first_day=members["from"].day() if "from" in members else None,
            last_day=members["until"].day() if "until" in members else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRule:
    """Which sealed model the guest must have mounted; None leaves that part open."""

    root: bytes | None = None
    minimum_epoch: int | None = None

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({"root", "minimum_epoch"})
        if not members:
            raise ConfigError(f"{raw.at}: empty, want root or minimum_epoch")
        return cls(
            root=members["root"].hex(32) if "root" in members else None,
            minimum_epoch=members["minimum_epoch"].whole(2**53 - 1) if "minimum_epoch" in members else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything one verifier demands. The defaults are the strict ones."""

    measurements: tuple[ReferenceValue, ...]
    host_data: frozenset[bytes] | None  # None accepts any
    minimum_tcb: Mapping[str, int] = field(default_factory=lambda: _NO_FLOOR)
    products: tuple[str, ...] = ("Genoa", "Turin")
    vmpl: tuple[int, ...] = (0,)
    require_alias_check: bool = True
    vlek_providers: tuple[str, ...] = ()
    insecure_simulated_roots: frozenset[bytes] = frozenset()
    model: ModelRule | None = None
    engine_versions: tuple[str, ...] | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        for name in ("measurements", "host_data", "products", "vmpl", "engine_versions"):
            value = getattr(self, name)
            if value is not None and not value:
                raise ConfigError(f"policy.{name}: empty, want at least one")

    @property
    def roots(self) -> Roots:
        """The production roots, and the simulated ones this policy names."""
        return PRODUCTION.with_insecure(self.insecure_simulated_roots)

    def accepted_on(self, moment: datetime) -> tuple[ReferenceValue, ...]:
        """The measurements accepted at `moment` (with a zone)."""
        day = moment.astimezone(UTC).date()
        return tuple(reference for reference in self.measurements if reference.holds_on(day))

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any], at: str = "policy") -> Self:
        """`at` is the key path shown in errors; ConfigError names the first key that is wrong."""
        members = Raw(raw, at).mapping(set(_READERS), required={"version", "measurements", "host_data"})
        values = {key: _READERS[key](member) for key, member in members.items()}
        values.pop("version")
        values.pop("allow_debug", None)
        if "engine" in values:
            values["engine_versions"] = values.pop("engine")
        return cls(**values)


def _version(raw: Raw) -> int:
    if raw.whole(1) != 1:
        raise ConfigError(f"{raw.at}: got 0, want 1")
    return 1


def _host_data(raw: Raw) -> frozenset[bytes] | None:
    return None if raw.value == "any" else frozenset(item.hex(32) for item in raw.items())


def _minimum_tcb(raw: Raw) -> Mapping[str, int]:
    members = raw.mapping(set(_TCB_COMPONENTS))
    if not members:
        raise ConfigError(f"{raw.at}: empty, want at least one of {', '.join(_TCB_COMPONENTS)}")
    return MappingProxyType({name: level.whole(255) for name, level in members.items()})


def _products(raw: Raw) -> tuple[str, ...]:
    return tuple(item.one_of(PRODUCTS) for item in raw.items())


def _vmpl(raw: Raw) -> tuple[int, ...]:
    return tuple(item.whole(3) for item in raw.items())


def _no_debug(raw: Raw) -> bool:
    if raw.flag():
        raise ConfigError(f"{raw.at}: got true, want false: a debug guest is never accepted")
    return False


def _engine(raw: Raw) -> tuple[str, ...]:
    versions = raw.mapping({"versions"}, required={"versions"})["versions"]
    return tuple(item.text() for item in versions.items())


_READERS: Final[Mapping[str, Any]] = {
    "version": _version,
    "measurements": lambda raw: tuple(ReferenceValue.from_raw(item) for item in raw.items()),
    "host_data": _host_data,
    "minimum_tcb": _minimum_tcb,
    "products": _products,
    "vmpl": _vmpl,
    "require_alias_check": Raw.flag,
    "vlek_providers": lambda raw: tuple(item.text() for item in raw.items(empty=True)),
    "allow_debug": _no_debug,
    "insecure_simulated_roots": lambda raw: frozenset(item.hex(32) for item in raw.items(empty=True)),
    "model": ModelRule.from_raw,
    "engine": _engine,
    "gpus": lambda raw: raw.whole(16),
}
