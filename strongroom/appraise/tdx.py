"""What a policy says of an Intel TDX guest: the section `tdx`.

    images: [{name: NAME, mr_td: HEX96, rtmr0: HEX96, rtmr1: HEX96, rtmr2: HEX96, rtmr3: HEX96?,
              from: DATE?, until: DATE?}]                   required; each register may be the word any;
                                                            rtmr3 default: the word events
    mr_config_id: [HEX96, ...] or the word any              required
    mr_owner, mr_owner_config: [HEX96, ...] or the word any default: zeros
    tcb_statuses: [UpToDate]                                default
    allowed_advisories: [INTEL-SA-NNNNN, ...] or any        default: none
    denied_advisories: [INTEL-SA-NNNNN, ...]                default: none
    minimum_module: {version: N, svn: N}                    default: no floor
    minimum_tcb_date: DATE                                  default: no floor
    minimum_evaluation: N                                   default: no floor
    require_sept_ve_disable: true                           default; false behind a paravisor of the images

An image is accepted whole: registers of two images never mix. The word events wants RTMR3 to be the head of
the event log, which is what extending it with the digest of every event makes of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Self

from strongroom.appraise.raw import Raw
from strongroom.appraise.result import Aspect, Result, any_of
from strongroom.appraise.window import KEYS, Named, matched, window
from strongroom.errors import ConfigError
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.tdx import TDReportBody
from strongroom.verify.tdx import TDXClaims
from strongroom.verify.tdx_tcb import TCBStatus

ANY: Final = "any"
EVENTS: Final = "events"
_SIZE: Final = 48  # bytes of every register
_ZERO: Final = bytes(_SIZE)
_REGISTERS: Final = ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_XFAM_NEEDED: Final = 0x3  # x87 and SSE
_XFAM_ALLOWED: Final = 0x0006DBE7
_STATUSES: Final = tuple(status for status in TCBStatus if status is not TCBStatus.REVOKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TDXImage(Named):
    """One accepted state of MRTD and the runtime registers; a word stands where a value may vary."""

    registers: Mapping[str, bytes | str]

    def fits(self, body: TDReportBody, events: EventLog | None) -> bool:
        return all(_fits(getattr(body, name), want, events) for name, want in self.registers.items())

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({*KEYS, *_REGISTERS}, required={"name", *_REGISTERS[:-1]})
        registers: dict[str, bytes | str] = {"rtmr3": EVENTS}
        registers |= {name: _register(members[name], name) for name in _REGISTERS if name in members}
        return cls(registers=registers, **window(members))


@dataclass(frozen=True, slots=True, kw_only=True)
class TDXPolicy:
    """None accepts any. The defaults are the strict ones."""

    images: tuple[TDXImage, ...]
    mr_config_id: frozenset[bytes] | None
    mr_owner: frozenset[bytes] | None = frozenset({_ZERO})
    mr_owner_config: frozenset[bytes] | None = frozenset({_ZERO})
    tcb_statuses: tuple[TCBStatus, ...] = (TCBStatus.UP_TO_DATE,)
    allowed_advisories: frozenset[str] | None = frozenset()
    denied_advisories: frozenset[str] = frozenset()
    minimum_module: tuple[int, int] = (0, 0)  # version and SVN of the TDX module
    minimum_tcb_date: date | None = None
    minimum_evaluation: int = 0
    require_sept_ve_disable: bool = True

    def __post_init__(self) -> None:
        for name in ("images", "mr_config_id", "mr_owner", "mr_owner_config", "tcb_statuses"):
            if (value := getattr(self, name)) is not None and not value:
                raise ConfigError(f"policy.tdx.{name}: empty, want at least one")

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping(set(_READERS), required={"images", "mr_config_id"})
        return cls(**{key: _READERS[key](member) for key, member in members.items()})


def appraise_tdx(
    claims: TDXClaims | None, policy: TDXPolicy, events: EventLog | None, now: datetime
) -> list[Result]:
    """One result for each check, in a fixed order."""
    if claims is None:
        return [Result("tdx", False, "absent", "a verified quote", Aspect.HARDWARE)]
    body = claims.body
    fitting = [image for image in policy.images if image.fits(body, events)]
    found = " ".join(f"{name}={getattr(body, name).hex()}" for name in _REGISTERS)
    return [
        matched("image", found, fitting, policy.images, now),
        _one_of("mr_config_id", body.mr_config_id, policy.mr_config_id),
        _one_of("mr_owner", body.mr_owner, policy.mr_owner),
        _one_of("mr_owner_config", body.mr_owner_config, policy.mr_owner_config),
        *_attributes(body, policy),
        *_levels(claims, policy),
    ]


def _attributes(body: TDReportBody, policy: TDXPolicy) -> list[Result]:
    bound = body.mr_service_td is not None and body.mr_service_td != _ZERO
    reserved, sept = body.reserved_attributes, body.sept_ve_disable
    xfam = body.xfam & _XFAM_NEEDED == _XFAM_NEEDED and not body.xfam & ~_XFAM_ALLOWED
    return [
        Result("debug", not body.debug, "on" if body.debug else "off", "off"),
        Result("reserved attributes", not reserved, f"{reserved:#x}", "0x0"),
        Result(
            "migration",
            not (body.migratable or bound),
            "a service TD is bound" if bound else "possible" if body.migratable else "off",
            "off",
        ),
        Result(
            "sept_ve_disable",
            sept or not policy.require_sept_ve_disable,
            "set" if sept else "clear",
            "set" if policy.require_sept_ve_disable else "any",
        ),
        Result("xfam", xfam, f"{body.xfam:#x}", f"bits 0 and 1, and none outside {_XFAM_ALLOWED:#x}"),
    ]


def _levels(claims: TDXClaims, policy: TDXPolicy) -> list[Result]:
    module = (claims.body.module_version, claims.body.module_svn)
    day, floor = claims.tcb_date.astimezone(UTC).date(), policy.minimum_tcb_date
    number = claims.evaluation_data_number
    return [
        Result(
            "tcb status",
            claims.tcb_status in policy.tcb_statuses,
            claims.tcb_status,
            any_of(policy.tcb_statuses),
            Aspect.HARDWARE,
        ),
        _advisories(claims, policy),
        Result(
            "tdx module",
            module >= policy.minimum_module,
            _module(module),
            f"at least {_module(policy.minimum_module)}",
            Aspect.HARDWARE,
        ),
        Result(
            "tcb date",
            floor is None or day >= floor,
            day.isoformat(),
            "any" if floor is None else f"{floor.isoformat()} or later",
            Aspect.HARDWARE,
        ),
        Result(
            "tcb evaluation",
            number >= policy.minimum_evaluation,
            str(number),
            f"at least {policy.minimum_evaluation}",
            Aspect.HARDWARE,
        ),
    ]


def _advisories(claims: TDXClaims, policy: TDXPolicy) -> Result:
    found = frozenset(claims.advisories)
    denied = found & policy.denied_advisories
    if policy.allowed_advisories is not None:
        denied |= found - policy.allowed_advisories
    shown = any_of(sorted(denied or found)).replace(" or ", " and ")
    wanted = "any" if policy.allowed_advisories is None else any_of(sorted(policy.allowed_advisories))
    if policy.denied_advisories:
        wanted += f", and none of {', '.join(sorted(policy.denied_advisories))}"
    return Result("advisories", not denied, shown, wanted, Aspect.HARDWARE)


def _one_of(check: str, found: bytes, wanted: frozenset[bytes] | None) -> Result:
    if wanted is None:
        return Result(check, True, found.hex(), "any")
    return Result(check, found in wanted, found.hex(), any_of(sorted(value.hex() for value in wanted)))


def _fits(found: bytes, want: bytes | str, events: EventLog | None) -> bool:
    if want == EVENTS:
        return events is not None and found == events.head
    return want in (ANY, found)


def _module(module: tuple[int, int]) -> str:
    return f"version {module[0]} svn {module[1]}"


def _register(raw: Raw, name: str) -> bytes | str:
    if raw.value == ANY or (raw.value == EVENTS and name == "rtmr3"):
        return str(raw.value)
    return raw.hex(_SIZE)


def _any_or_registers(raw: Raw) -> frozenset[bytes] | None:
    return None if raw.value == ANY else frozenset(item.hex(_SIZE) for item in raw.items())


def _any_or_names(raw: Raw) -> frozenset[str] | None:
    return None if raw.value == ANY else frozenset(item.text() for item in raw.items(empty=True))


def _minimum_module(raw: Raw) -> tuple[int, int]:
    members = raw.mapping({"version", "svn"}, required={"version", "svn"})
    return members["version"].whole(255), members["svn"].whole(255)


_READERS: Final[Mapping[str, Any]] = {
    "images": lambda raw: tuple(TDXImage.from_raw(item) for item in raw.items()),
    "mr_config_id": _any_or_registers,
    "mr_owner": _any_or_registers,
    "mr_owner_config": _any_or_registers,
    "tcb_statuses": lambda raw: tuple(TCBStatus(item.one_of(_STATUSES)) for item in raw.items()),
    "allowed_advisories": _any_or_names,
    "denied_advisories": lambda raw: frozenset(item.text() for item in raw.items()),
    "minimum_module": _minimum_module,
    "minimum_tcb_date": Raw.day,
    "minimum_evaluation": lambda raw: raw.whole(2**31),
    "require_sept_ve_disable": Raw.flag,
}
