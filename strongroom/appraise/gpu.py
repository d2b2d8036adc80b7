"""What a policy says of GPUs: the section `gpu`, beside the number `gpus`.

    architectures: [hopper, blackwell]              required
    drivers: [VERSION, ...]                         required, exact
    vbios: [VERSION, ...]                           required, exact
    modes: [single, multi, protected-pcie]          default; unknown only if named (firmware that does not say)
    cc_modes: [on, protected-pcie, nvle]            default; unknown only if named (an agent that does not say)
    devtools: off                                   default; or unknown, for an agent that does not say. Never on
    switches: 0                                     default
    switch_vbios: [VERSION, ...]                    required with switches
    require_measurements: true                      default: all compared with the maker's reference values
    allow_expired_signers: false                    default: of reference values, certified for two years
    ocsp_hours: 24                                  default: oldest word on revocation; the word any asks for none

Two of these speak of modes. `modes` is about what each device signed. `cc_modes` and `devtools` are about what the
driver said to the agent that the machine's evidence measures: as good as that measurement, and no device's word. With
developer tools on, several measurements differ from the published ones, so `require_measurements` refuses them by the
devices' word as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from strongroom.appraise.raw import Raw
from strongroom.appraise.result import Aspect, Result, any_of, refused
from strongroom.errors import ConfigError
from strongroom.evidence.nvml import CC_MODES, NVMLState
from strongroom.verify.claims import Claims
from strongroom.verify.devices import DeviceClaims
from strongroom.verify.nvidia import PROTECTED_PCIE, GPUClaims

ARCHITECTURES: Final = ("hopper", "blackwell")
MODES: Final = ("single", "multi", "protected-pcie", "unknown")
UNKNOWN: Final = "unknown"
_FLAGS: Final = {0: "single", 1: "multi", PROTECTED_PCIE: "protected-pcie"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUPolicy:
    architectures: tuple[str, ...]
    drivers: tuple[str, ...]
    vbios: tuple[str, ...]
    modes: tuple[str, ...] = MODES[:-1]
    cc_modes: tuple[str, ...] = CC_MODES
    devtools: tuple[str, ...] = ("off",)
    switches: int = 0
    switch_vbios: tuple[str, ...] = ()
    require_measurements: bool = True
    allow_expired_signers: bool = False
    ocsp_age: timedelta | None = timedelta(hours=24)  # None asks for no answer

    def __post_init__(self) -> None:
        for name in ("architectures", "drivers", "vbios", "modes", "cc_modes", "devtools"):
            if not getattr(self, name):
                raise ConfigError(f"policy.gpu.{name}: empty, want at least one")
        if not {*self.cc_modes} <= {*CC_MODES, UNKNOWN} or not {*self.devtools} <= {"off", UNKNOWN}:
            raise ConfigError(
                "policy.gpu: cc off or developer tools on, want neither: the host could look inside"
            )
        if bool(self.switches) != bool(self.switch_vbios):
            raise ConfigError("policy.gpu.switch_vbios: want it with switches, and only then")

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping(set(_READERS), required={"architectures", "drivers", "vbios"})
        values: dict[str, Any] = {key: _READERS[key](member) for key, member in members.items()}
        if "ocsp_hours" in values:
            values["ocsp_age"] = values.pop("ocsp_hours")
        return cls(**values)


def appraise_gpus(claims: Claims, wanted: int, policy: GPUPolicy | None, now: datetime) -> list[Result]:
    """The number of GPUs, always; and one result for each check where there are devices or a section."""
    number, devices = Result("gpus", claims.gpus == wanted, str(claims.gpus), str(wanted)), claims.devices
    if policy is None:
        return [number] if devices is None else [number, refused("gpu evidence", "present", "gpu")]
    if devices is None:
        return [number, Result("gpu evidence", False, "absent", "that of every gpu", Aspect.HARDWARE)]
    return [number, *_kinds(devices, policy), *_said(claims.gpu_state, policy), *_trust(devices, policy, now)]


def _kinds(claims: DeviceClaims, policy: GPUPolicy) -> list[Result]:
    gpus, switches = claims.devices.gpus, claims.devices.switches
    return [
        _all_in(
            "gpu architecture", [gpu.architecture for gpu in gpus], policy.architectures, Aspect.HARDWARE
        ),
        _all_in("gpu driver", [str(gpu.driver_version) for gpu in gpus], policy.drivers, Aspect.EXECUTABLES),
        _all_in("gpu vbios", [gpu.vbios_version for gpu in gpus], policy.vbios, Aspect.HARDWARE),
        _all_in("gpu mode", [_mode(gpu) for gpu in gpus], policy.modes, Aspect.CONFIGURATION),
        Result("switches", len(switches) == policy.switches, str(len(switches)), str(policy.switches)),
        *(
            [
                _all_in(
                    "switch vbios", [s.vbios_version for s in switches], policy.switch_vbios, Aspect.HARDWARE
                )
            ]
            if switches
            else []
        ),
    ]


def _said(state: NVMLState | None, policy: GPUPolicy) -> list[Result]:
    silent = (UNKNOWN,) if UNKNOWN in policy.cc_modes else ()
    said = (
        (UNKNOWN,) * 4
        if state is None
        else (state.cc_mode, state.devtools_name, state.environment_name, state.ready_name)
    )
    return [
        _by_agent("gpu cc mode", said[0], policy.cc_modes),
        _by_agent("gpu devtools", said[1], policy.devtools),
        _by_agent("gpu environment", said[2], ("production", *silent)),
        _by_agent("gpu ready flag", said[3], ("clear", *silent)),
    ]


def _by_agent(check: str, found: str, wanted: tuple[str, ...]) -> Result:
    return Result(check, found in wanted, f"{found}, by the agent's word", any_of(wanted))


def _trust(claims: DeviceClaims, policy: GPUPolicy, now: datetime) -> list[Result]:
    expired = claims.expired_signers
    return [
        Result(
            "gpu measurements",
            claims.measured or not policy.require_measurements,
            "as published" if claims.measured else "not compared",
            "as published" if policy.require_measurements else "any",
            Aspect.EXECUTABLES,
        ),
        Result(
            "gpu reference values",
            not expired or policy.allow_expired_signers,
            f"signed by expired {', '.join(expired)}" if expired else "signed by certificates in time",
            "any" if policy.allow_expired_signers else "signed by certificates in time",
            Aspect.EXECUTABLES,
        ),
        _revocation(claims.answered_at, policy.ocsp_age, now),
    ]


def _revocation(answered: datetime | None, limit: timedelta | None, now: datetime) -> Result:
    found = "unknown" if answered is None else f"known as of {answered.isoformat()}"
    if limit is None:
        return Result("gpu revocation", True, found, "any", Aspect.HARDWARE)
    wanted = f"known, at most {limit // timedelta(hours=1)} hours old"
    recent = answered is not None and now - answered <= limit
    return Result("gpu revocation", recent, found, wanted, Aspect.HARDWARE)


def _all_in(check: str, found: list[str], wanted: tuple[str, ...], aspect: Aspect) -> Result:
    different = sorted(set(found))
    passed = bool(found) and all(one in wanted for one in found)
    return Result(check, passed, " and ".join(different) or "unknown", any_of(wanted), aspect)


def _mode(gpu: GPUClaims) -> str:
    if gpu.protected_pcie:
        return _FLAGS[PROTECTED_PCIE]
    return "unknown" if gpu.feature_flag is None else _FLAGS.get(gpu.feature_flag, "unknown")


def _texts(raw: Raw) -> tuple[str, ...]:
    return tuple(item.text() for item in raw.items())


_READERS: Final[Mapping[str, Any]] = {
    "architectures": lambda raw: tuple(item.one_of(ARCHITECTURES) for item in raw.items()),
    "drivers": _texts,
    "vbios": _texts,
    "modes": lambda raw: tuple(item.one_of(MODES) for item in raw.items()),
    "cc_modes": lambda raw: tuple(item.one_of((*CC_MODES, UNKNOWN)) for item in raw.items()),
    "devtools": lambda raw: ("off",) if raw.one_of(("off", UNKNOWN)) == "off" else ("off", UNKNOWN),
    "switches": lambda raw: raw.whole(16),
    "switch_vbios": _texts,
    "require_measurements": Raw.flag,
    "allow_expired_signers": Raw.flag,
    "ocsp_hours": lambda raw: None if raw.value == "any" else timedelta(hours=raw.whole(24 * 365)),
}
