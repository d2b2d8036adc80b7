"""Intel's TCB info: which patch levels of a platform and of its TDX module are good, and how good.

Source: Intel, "API Documentation for Provisioning Certification Service", TDX TCB info version 3; levels are
matched as its quote verification library does. Levels stand best first, and the first that fits counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import Final, Self

from strongroom.errors import VerifyError
from strongroom.evidence.pck import COMPONENTS, PCKExtension
from strongroom.evidence.tdx import TDReportBody
from strongroom.verify.intel_json import Member

MAX_LEVELS: Final = 256
MAX_ADVISORIES: Final = 256
MAX_MODULES: Final = 32
_SUBJECT: Final = "tcb info"


class TCBStatus(StrEnum):
    """Best first. What a policy accepts of these is its own matter."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"


_HARDENING, _CONFIGURATION, _UPDATE, _REPLACEMENT = 1, 2, 4, 8
_NEEDS: Final = {
    TCBStatus.UP_TO_DATE: 0,
    TCBStatus.SW_HARDENING_NEEDED: _HARDENING,
    TCBStatus.CONFIGURATION_NEEDED: _CONFIGURATION,
    TCBStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: _CONFIGURATION | _HARDENING,
    TCBStatus.OUT_OF_DATE: _UPDATE,
    TCBStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: _UPDATE | _CONFIGURATION,
    TCBStatus.REVOKED: _REPLACEMENT,
}
_STATUSES: Final = {needs: status for status, needs in _NEEDS.items()}


def worst(*statuses: TCBStatus) -> TCBStatus:
    """The one status that asks for everything the given ones ask for."""
    needs = reduce(or_, (_NEEDS[status] for status in statuses), 0)
    if needs & _REPLACEMENT:
        return TCBStatus.REVOKED
    # Out of date says nothing of hardening: the level that is up to date will.
    return _STATUSES[needs & ~_HARDENING if needs & _UPDATE else needs]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one component stands, since when, and which advisories (such as INTEL-SA-01036) concern it."""

    status: TCBStatus
    tcb_date: datetime
    advisories: tuple[str, ...]

    @classmethod
    def read(cls, level: Member) -> Self:
        status = level.text("tcbStatus")
        if status not in {*TCBStatus}:  # a status we do not know is no status
            raise VerifyError(f"{level.at}: tcbStatus is {status[:64]!a}, want one Intel has defined")
        return cls(
            TCBStatus(status), level.moment("tcbDate"), level.texts("advisoryIDs", most=MAX_ADVISORIES)
        )


@dataclass(frozen=True, slots=True)
class ISVLevel:
    """A level of an enclave or a module, which has a single number."""

    isv_svn: int
    standing: Standing

    @classmethod
    def read_all(cls, owner: Member) -> tuple[Self, ...]:
        return tuple(
            cls(level.member("tcb").number("isvsvn", most=0xFFFF), Standing.read(level))
            for level in owner.members("tcbLevels", most=MAX_LEVELS)
        )


@dataclass(frozen=True, slots=True)
class PlatformLevel:
    sgx: tuple[int, ...]
    pce_svn: int
    tdx: tuple[int, ...] | None
    standing: Standing

    @classmethod
    def read(cls, level: Member) -> Self:
        tcb = level.member("tcb")
        return cls(
            _components(tcb, "sgxtcbcomponents"),
            tcb.number("pcesvn", most=0xFFFF),
            _components(tcb, "tdxtcbcomponents") if "tdxtcbcomponents" in tcb else None,
            Standing.read(level),
        )

    def covers(self, pck: PCKExtension, tee_tcb_svn: bytes) -> bool:
        # From generation 1 on, the first two numbers are the module's and judged by its identity.
        first = 2 if tee_tcb_svn[1] else 0
        return (
            all(have >= want for have, want in zip(pck.sgx_tcb_components, self.sgx, strict=True))
            and pck.pce_svn >= self.pce_svn
            and (
                self.tdx is None
                or all(have >= want for have, want in zip(tee_tcb_svn[first:], self.tdx[first:], strict=True))
            )
        )


@dataclass(frozen=True, slots=True)
class ModuleIdentity:
    """Who signed a TDX module. Generation 0 has no levels of its own."""

    mrsigner: bytes
    attributes: int
    attributes_mask: int
    levels: tuple[ISVLevel, ...]

    @classmethod
    def read(cls, module: Member) -> Self:
        return cls(
            module.octets("mrsigner", 48),
            int.from_bytes(module.octets("attributes", 8), "little"),
            int.from_bytes(module.octets("attributesMask", 8), "little"),
            ISVLevel.read_all(module) if "tcbLevels" in module else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TCBInfo:
    issue_date: datetime
    next_update: datetime
    fmspc: bytes
    pce_id: bytes
    evaluation_data_number: int
    module: ModuleIdentity  # of generation 0
    modules: Mapping[int, ModuleIdentity]  # of the later ones
    levels: tuple[PlatformLevel, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the object under the signature; version 3 for TDX alone."""
        info = Member.parse(data, _SUBJECT)
        info.want("id", "TDX")
        info.want("version", 3)
        info.want("tcbType", 0)
        return cls(
            issue_date=info.moment("issueDate"),
            next_update=info.moment("nextUpdate"),
            fmspc=info.octets("fmspc", 6),
            pce_id=info.octets("pceId", 2),
            evaluation_data_number=info.number("tcbEvaluationDataNumber", most=0xFFFF_FFFF),
            module=ModuleIdentity.read(info.member("tdxModule")),
            modules=_modules(info),
            levels=tuple(PlatformLevel.read(level) for level in info.members("tcbLevels", most=MAX_LEVELS)),
        )

    def platform(self, pck: PCKExtension, tee_tcb_svn: bytes) -> Standing:
        """How the platform stands; VerifyError when these levels are for another, or none fits."""
        if (pck.fmspc, pck.pce_id) != (self.fmspc, self.pce_id):
            raise VerifyError(
                f"{_SUBJECT}: is for fmspc {self.fmspc.hex()} pceid {self.pce_id.hex()}, "
                f"want {pck.fmspc.hex()} {pck.pce_id.hex()}"
            )
        for level in self.levels:
            if level.covers(pck, tee_tcb_svn):
                return level.standing
        raise VerifyError(f"{_SUBJECT}: no level covers this platform, which is then not supported")

    def module_standing(self, body: TDReportBody, tee_tcb_svn: bytes) -> Standing | None:
        """How the TDX module stands; None for generation 0, which the platform's level covers."""
        isv_svn, generation = tee_tcb_svn[:2]
        identity = self.modules.get(generation) if generation else self.module
        if identity is None:
            raise VerifyError(f"{_SUBJECT}: no identity for tdx module generation {generation}")
        if body.mrsigner_seam != identity.mrsigner:
            raise VerifyError("td report body: mrsigner_seam is not the module's signer")
        if body.seam_attributes & identity.attributes_mask != identity.attributes:
            raise VerifyError(
                f"td report body: seam_attributes are {body.seam_attributes:#x}, unlike the module's"
            )
        if not generation:
            return None
        return standing_of(identity.levels, isv_svn, f"tdx module {generation}")


def standing_of(levels: tuple[ISVLevel, ...], isv_svn: int, what: str) -> Standing:
    """The first level this version number reaches."""
    for level in levels:
        if isv_svn >= level.isv_svn:
            return level.standing
    raise VerifyError(f"{what}: svn is {isv_svn}, below every level Intel has published")


def _modules(info: Member) -> dict[int, ModuleIdentity]:
    modules: dict[int, ModuleIdentity] = {}
    listed = info.members("tdxModuleIdentities", most=MAX_MODULES) if "tdxModuleIdentities" in info else ()
    for module in listed:
        name = module.text("id")
        generation = next((n for n in range(1, 0x100) if name == f"TDX_{n:02X}"), None)
        if generation is None or generation in modules:
            raise VerifyError(f"{module.at}: id is {name[:32]!a}, want TDX_01..TDX_FF, each once")
        modules[generation] = ModuleIdentity.read(module)
    return modules


def _components(tcb: Member, key: str) -> tuple[int, ...]:
    components = tcb.members(key, most=COMPONENTS)
    if len(components) != COMPONENTS:
        raise VerifyError(f"{tcb.at}.{key}: {len(components)} components, want {COMPONENTS}")
    return tuple(component.number("svn", most=0xFF) for component in components)
