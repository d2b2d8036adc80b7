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
    model: {root: HEX64?, minimum_epoch: N?, manifest: HEX64?, providers: [HEX64, ...]?}
                                          default: any; the last two speak of a model that was pushed into the guest:
                                          the digest of what was pushed, and of the keys of those who may have
    engine: {versions: [TEXT, ...]}                                          default: any
    gpus: 0                                                                  default
    tdx: {...}     appraise/tdx.py        default: no TDX guest is accepted; with it, the three keys that speak
                                          of SNP (measurements, host_data, minimum_tcb) may be absent, and then
                                          no SNP guest is
    tpm: {...}     appraise/tpm.py        default: no TPM quote is accepted; with its `keys` those three keys may be
                                          absent as well
    azure: {...}   appraise/azure.py      default: no Azure guest is accepted
    gpu: {...}     appraise/gpu.py        default: no GPU is accepted

A section for something the evidence lacks is a refusal too. An unknown key and an empty list are errors: a
policy that checks nothing must not look like one that does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self

from strongroom.appraise.azure import AzurePolicy
from strongroom.appraise.gpu import GPUPolicy
from strongroom.appraise.raw import Raw
from strongroom.appraise.tdx import TDXPolicy
from strongroom.appraise.tpm import TPMPolicy
from strongroom.appraise.window import KEYS, Named, holding, window
from strongroom.errors import ConfigError
from strongroom.verify.roots import PRODUCTION, Roots

PRODUCTS: Final = ("Milan", "Genoa", "Turin")
_SNP_KEYS: Final = frozenset({"measurements", "host_data"})
_TCB_COMPONENTS: Final = ("fmc", "bootloader", "tee", "snp", "microcode")
_NO_FLOOR: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue(Named):
    """One accepted launch measurement, and the days (UTC, both included) on which it is accepted."""

    value: bytes

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({*KEYS, "value"}, required={"name", "value"})
        return cls(value=members["value"].hex(48), **window(members))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRule:
    """Which sealed model the guest must have mounted; None leaves that part open."""

    root: bytes | None = None
    minimum_epoch: int | None = None
    manifest: bytes | None = None
    providers: frozenset[bytes] | None = None

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        keys = ("root", "minimum_epoch", "manifest", "providers")
        members = raw.mapping(set(keys))
        if not members:
            raise ConfigError(f"{raw.at}: empty, want at least one of {', '.join(keys)}")
        providers = (
            [item.hex(32) for item in members["providers"].items()] if "providers" in members else None
        )
        return cls(
            root=members["root"].hex(32) if "root" in members else None,
            minimum_epoch=members["minimum_epoch"].whole(2**53 - 1) if "minimum_epoch" in members else None,
            manifest=members["manifest"].hex(32) if "manifest" in members else None,
            providers=frozenset(providers) if providers is not None else None,
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
    tdx: TDXPolicy | None = None
    tpm: TPMPolicy | None = None
    azure: AzurePolicy | None = None
    gpu: GPUPolicy | None = None

    def __post_init__(self) -> None:
        for name in ("measurements", "host_data", "products", "vmpl", "engine_versions"):
            value = getattr(self, name)
            if value is not None and not value and (name not in _SNP_KEYS or not self._beside_snp):
                raise ConfigError(f"policy.{name}: empty, want at least one")
        if bool(self.measurements) != (self.host_data != frozenset()):
            raise ConfigError("policy.host_data: want it with measurements, and only then")
        if self.gpu is not None and not self.gpus:
            raise ConfigError("policy.gpu: gpus is 0, want at least 1 beside this section")

    @property
    def roots(self) -> Roots:
        """The production roots, and the simulated ones and the TPMs this policy names."""
        named = PRODUCTION.with_insecure(self.insecure_simulated_roots)
        return named if self.tpm is None else named.with_tpm_keys(self.tpm.keys)

    @property
    def _beside_snp(self) -> bool:
        """Whether it speaks of machines that are no SNP guests."""
        return self.tdx is not None or (self.tpm is not None and bool(self.tpm.keys))

    def accepted_on(self, moment: datetime) -> tuple[ReferenceValue, ...]:
        """The measurements accepted at `moment` (with a zone)."""
        return holding(self.measurements, moment)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any], at: str = "policy") -> Self:
        """`at` is the key path shown in errors; ConfigError names the first key that is wrong."""
        tpm = raw.get("tpm")
        is_other = "tdx" in raw or (isinstance(tpm, Mapping) and "keys" in tpm)
        required = {"version"} if is_other and not _SNP_KEYS & raw.keys() else {"version", *_SNP_KEYS}
        members = Raw(raw, at).mapping(set(_READERS), required=required)
        values = dict.fromkeys(_SNP_KEYS, frozenset()) | {
            key: _READERS[key](member) for key, member in members.items()
        }
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
    "tdx": TDXPolicy.from_raw,
    "tpm": TPMPolicy.from_raw,
    "azure": AzurePolicy.from_raw,
    "gpu": GPUPolicy.from_raw,
}
