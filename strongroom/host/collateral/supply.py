"""Kept collateral in the shapes verifiers take. What is absent, forged or out of date is never handed on.

`amd_certificates` and `collateral` refuse where any of it is missing; `at_hand` gives what there is, and says what not.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import (
    AMD_CRL,
    INTEL_PCK_CRL,
    INTEL_PCK_CRL_CHAIN,
    INTEL_QE_IDENTITY,
    INTEL_QE_IDENTITY_CHAIN,
    INTEL_ROOT_CRL,
    INTEL_TCB_INFO,
    INTEL_TCB_INFO_CHAIN,
    MAX_BYTES,
    MAX_ENTRIES,
    NVIDIA_OCSP,
    NVIDIA_RIM,
    NVIDIA_RIM_OCSP,
    Collateral,
)
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.intel import IntelPlatform
from strongroom.host.collateral.item import Item, Parts
from strongroom.host.collateral.nvidia import NVIDIAManifest, NVIDIAStatus
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.wanted import raised_by
from strongroom.verify.roots import Roots

FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_INTEL: Final = {
    "tcb_info": INTEL_TCB_INFO,
    "tcb_info_chain": INTEL_TCB_INFO_CHAIN,
    "qe_identity": INTEL_QE_IDENTITY,
    "qe_identity_chain": INTEL_QE_IDENTITY_CHAIN,
    "root_crl": INTEL_ROOT_CRL,
    "pck_crl": INTEL_PCK_CRL,
    "pck_crl_chain": INTEL_PCK_CRL_CHAIN,
}


def amd_certificates(items: Iterable[Item], store: Store, *, roots: Roots, now: datetime) -> CertificateTable:
    """The certificates and the revocation list of a chip, from `wanted.for_snp_report`; VerifyError without them."""
    found: dict[str, bytes] = {}
    for item in items:
        if isinstance(item, AMDChip | AMDIssuers):
            found |= store.take(item, roots=roots, now=now)
    return CertificateTable(**found)


def collateral(items: Iterable[Item], store: Store, *, roots: Roots, now: datetime) -> Collateral:
    """What the items answer, and what that takes itself, by the names a bundle carries it under.

    VerifyError when any of it is absent or does not hold at `now`.
    """
    waiting, seen, entries = deque(items), set[Item](), dict[str, bytes]()
    while waiting:
        item = waiting.popleft()
        if item in seen:
            continue
        seen.add(item)
        parts = store.take(item, roots=roots, now=now)
        entries |= named(item, parts)
        waiting += raised_by(item, parts)
    return Collateral.of(entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplied:
    """What a store has for one machine."""

    collateral: Collateral = field(default_factory=Collateral)
    certificates: CertificateTable = field(default_factory=CertificateTable)  # of an AMD chip
    lacking: tuple[Item, ...] = ()  # absent, or it holds no longer
    until: datetime = FOREVER  # all of it holds up to here


Supply = Callable[[Bundle], Supplied]
"""What somebody has of their own for the machine of a bundle, which is not verified yet."""


def nothing(_bundle: Bundle) -> Supplied:
    """The supply of whoever keeps nothing."""
    return Supplied()


def at_hand(items: Iterable[Item], store: Store, *, roots: Roots, now: datetime) -> Supplied:
    """Whatever of the items, and of what they raise, the store has and holds at `now`. Raises nothing for the rest."""
    waiting, seen, lacking = deque(items), set[Item](), list[Item]()
    entries, certificates = dict[str, bytes](), dict[str, bytes]()
    until = FOREVER
    while waiting:
        item = waiting.popleft()
        if item in seen:
            continue
        seen.add(item)
        try:
            entry = store.find(item)
            if entry is None:
                raise VerifyError(f"{item.title}: not kept")
            signed = item.examine(entry.parts, roots=roots, now=now)
        except (FormatError, MachineError, VerifyError):
            lacking.append(item)
            continue
        found = named(item, entry.parts)
        if not _fits(entries | found):  # the rest is as if it were absent
            lacking.append(item)
            continue
        entries |= found
        certificates |= _certificates(item, entry.parts)
        until = min(until, signed.until)
        waiting += raised_by(item, entry.parts)
    return Supplied(
        collateral=Collateral.of(entries),
        certificates=CertificateTable(**certificates),
        lacking=tuple(dict.fromkeys(lacking)),
        until=until,
    )


def is_answered(item: Item, collateral: Collateral) -> bool:
    """Whether evidence brings its own answer to an item, good or not."""
    match item:
        case AMDIssuers():
            return collateral.find(AMD_CRL) is not None
        case IntelPlatform():
            return all(collateral.find(name) is not None for name in _INTEL.values())
        case NVIDIAManifest():
            return collateral.find(f"{NVIDIA_RIM}/{item.id}") is not None
        case NVIDIAStatus():
            return collateral.find(name_of_answer(item)) is not None
    return False


def _fits(entries: dict[str, bytes]) -> bool:
    return len(entries) <= MAX_ENTRIES and sum(map(len, entries.values())) <= MAX_BYTES


def _certificates(item: Item, parts: Parts) -> Parts:
    if not isinstance(item, AMDChip | AMDIssuers):
        return {}
    return {role: der for role, der in parts.items() if role != "crl"}


def named(item: Item, parts: Parts) -> dict[str, bytes]:
    """An answer by the names a bundle carries it under."""
    match item:
        case AMDIssuers():
            return {AMD_CRL: parts["crl"]}
        case IntelPlatform():
            return {_INTEL[name]: part for name, part in parts.items()}
        case NVIDIAManifest():
            return {f"{NVIDIA_RIM}/{item.id}": parts["rim"]}
        case NVIDIAStatus():
            return {name_of_answer(item): parts["answer"]}
    return {}  # certificates travel in the evidence itself


def name_of_answer(item: NVIDIAStatus) -> str:
    """The name a bundle carries a responder's answer under."""
    kind = NVIDIA_OCSP if item.use == "device" else NVIDIA_RIM_OCSP
    return f"{kind}/{sha256(item.chain[0]).hexdigest()}"
