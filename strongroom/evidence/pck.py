"""What Intel wrote into a PCK certificate about one platform: the SGX extension, 1.2.840.113741.1.13.1.

A SEQUENCE of pairs {object identifier, value}, DER. Source: Intel, "PCK Certificate and CRL Specification",
section 1.3.5. Pairs of numbers Intel has not given out yet are passed over, as it added the last two itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from strongroom.errors import FormatError
from strongroom.wire.der import DER, ENUMERATED

OID: Final = "1.2.840.113741.1.13.1"
COMPONENTS: Final = 16
_SUBJECT: Final = "pck extension"
_BYTE_FIELDS: Final = {"ppid": 16, "cpu_svn": 16, "pce_id": 2, "fmspc": 6}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PCKExtension:
    """One platform at one patch level. `ppid` and `platform_instance_id` identify a machine."""

    ppid: bytes
    sgx_tcb_components: tuple[int, ...]  # 16 numbers 0..255
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None = None  # platforms with the Platform CA only, as all below
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None

    def __post_init__(self) -> None:
        for name, size in _BYTE_FIELDS.items():
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_SUBJECT}: {name} is {found} bytes, want {size}")
        if len(self.sgx_tcb_components) != COMPONENTS:
            raise FormatError(f"{_SUBJECT}: {len(self.sgx_tcb_components)} tcb components, want {COMPONENTS}")

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Read the extension's value, or raise FormatError naming the first broken rule."""
        outer = DER(der, _SUBJECT)
        members = _members(outer.inside(), OID)
        outer.end()
        tcb = _members(_read(members, f"{OID}.2", DER.inside), f"{OID}.2")
        flags = _members(_read(members, f"{OID}.7", DER.inside), f"{OID}.7") if f"{OID}.7" in members else {}
        return cls(
            ppid=_read(members, f"{OID}.1", lambda value: value.octets(16)),
            sgx_tcb_components=tuple(
                _read(tcb, f"{OID}.2.{n}", lambda value: value.integer(most=0xFF))
                for n in range(1, COMPONENTS + 1)
            ),
            pce_svn=_read(tcb, f"{OID}.2.17", lambda value: value.integer(most=0xFFFF)),
            cpu_svn=_read(tcb, f"{OID}.2.18", lambda value: value.octets(16)),
            pce_id=_read(members, f"{OID}.3", lambda value: value.octets(2)),
            fmspc=_read(members, f"{OID}.4", lambda value: value.octets(6)),
            sgx_type=_read(members, f"{OID}.5", lambda value: value.integer(most=0xFF, tag=ENUMERATED)),
            platform_instance_id=_read(members, f"{OID}.6", lambda value: value.octets(16))
            if f"{OID}.6" in members
            else None,
            dynamic_platform=_flag(flags, 1),
            cached_keys=_flag(flags, 2),
            smt_enabled=_flag(flags, 3),
        )


def _members(sequence: DER, arc: str) -> dict[str, DER]:
    """The value of each pair, by object identifier, none of which may come twice."""
    members: dict[str, DER] = {}
    while sequence.more:
        pair = sequence.inside()
        oid = pair.oid()
        if not oid.startswith(f"{arc}.") or oid in members:
            raise FormatError(f"{_SUBJECT}: {oid} appears twice, or outside of its arc")
        members[oid] = pair
    return members


def _read(members: Mapping[str, DER], oid: str, how: Callable[[DER], _T]) -> _T:
    if oid not in members:
        raise FormatError(f"{_SUBJECT}: lacks {oid}")
    value = how(members[oid])
    members[oid].end()
    return value


def _flag(flags: Mapping[str, DER], n: int) -> bool | None:
    oid = f"{OID}.7.{n}"
    return _read(flags, oid, DER.boolean) if oid in flags else None
