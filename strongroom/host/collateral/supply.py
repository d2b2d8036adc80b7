"""Kept collateral in the shapes verifiers take. What is absent, forged or out of date is refused here already."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final

from strongroom.evidence.collateral import (
    AMD_CRL,
    INTEL_PCK_CRL,
    INTEL_PCK_CRL_CHAIN,
    INTEL_QE_IDENTITY,
    INTEL_QE_IDENTITY_CHAIN,
    INTEL_ROOT_CRL,
    INTEL_TCB_INFO,
    INTEL_TCB_INFO_CHAIN,
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
    waiting = deque((item, NVIDIA_OCSP) for item in items)
    seen, entries = set[tuple[Item, str]](), dict[str, bytes]()
    while waiting:
        item, answers = asked = waiting.popleft()
        if asked in seen:
            continue
        seen.add(asked)
        parts = store.take(item, roots=roots, now=now)
        entries |= _named(item, parts, answers)
        waiting += (
            (raised, NVIDIA_RIM_OCSP) for raised in raised_by(item, parts)
        )  # the signers of a manifest
    return Collateral.of(entries)


def _named(item: Item, parts: Parts, answers: str) -> dict[str, bytes]:
    match item:
        case AMDIssuers():
            return {AMD_CRL: parts["crl"]}
        case IntelPlatform():
            return {_INTEL[name]: part for name, part in parts.items()}
        case NVIDIAManifest():
            return {f"{NVIDIA_RIM}/{item.id}": parts["rim"]}
        case NVIDIAStatus():
            return {f"{answers}/{sha256(item.chain[0]).hexdigest()}": parts["answer"]}
    return {}  # certificates travel in the evidence itself
