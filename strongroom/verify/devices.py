"""Are the GPUs and switches of a bundle genuine, fresh for this challenge, and one consistent set?

Reference values and revocation answers are used where the collateral has them. What was compared, how old the
answers are, and whose certificate had expired is told, not judged; what contradicts a signed word is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from strongroom.errors import VerifyError
from strongroom.evidence.collateral import NVIDIA_OCSP, NVIDIA_RIM, NVIDIA_RIM_OCSP, Collateral
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.spdm import SPDMReport
from strongroom.verify.gpus import GPUSet, verify_set
from strongroom.verify.nvidia import GPUClaims, verify_device
from strongroom.verify.ocsp import Answers
from strongroom.verify.rim import GoldenValues, compare, verify_rim
from strongroom.verify.roots import Roots

_SWITCHES: Final = ("ls10",)
_ANY_AGE: Final = timedelta(days=3650)  # an answer's own end still counts; its age is for a policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClaims:
    """Verified facts of all devices. Only `verify_devices` makes these outside of tests."""

    devices: GPUSet
    measured: bool  # every measurement of every device was compared with its maker's reference values
    answered_at: datetime | None  # the oldest word on revocation of any device; None where one has none
    expired_signers: tuple[str, ...]  # certificates over reference values that were beyond their time
    roots: frozenset[bytes]  # SHA-256 of every simulated root that was used
    not_checked: tuple[str, ...]


def verify_devices(
    evidence: Sequence[GPUEvidence],
    *,
    nonce: bytes,
    collateral: Collateral,
    roots: Roots,
    now: datetime,
) -> DeviceClaims:
    """The claims of devices that were all asked with `nonce`, or VerifyError naming the first that fails."""
    answers = _answers(collateral, NVIDIA_OCSP)
    claims = [_device(n, one, nonce, answers, roots, now) for n, one in enumerate(evidence)]
    gpus = [one for one in claims if one.kind == "gpu"]
    devices = verify_set(gpus, [one for one in claims if one.kind == "switch"], count=len(gpus))
    golden = _golden(claims, collateral, roots, now)
    measured = [_measured(one, golden) for one in claims]
    ages = [one.ocsp_at for one in claims]
    simulated = {one.root_sha256 for one in claims if one.simulated}
    simulated |= {one.root_sha256 for one in golden.values() if one.simulated}
    gaps = [gap for one in claims for gap in one.not_checked] + [*devices.not_checked]
    gaps += [gap for one in golden.values() for gap in one.not_checked]
    if not all(measured):
        gaps.append("measurements of a gpu or switch: its reference values are not in the collateral")
    return DeviceClaims(
        devices=devices,
        measured=all(measured),
        answered_at=None if None in ages else min(age for age in ages if age is not None),
        expired_signers=tuple(sorted({name for one in golden.values() for name in one.expired})),
        roots=frozenset(simulated),
        not_checked=tuple(dict.fromkeys(gaps)),
    )


def _device(
    n: int, evidence: GPUEvidence, nonce: bytes, answers: Answers | None, roots: Roots, now: datetime
) -> GPUClaims:
    try:
        claims = verify_device(
            SPDMReport.parse(evidence.report),
            evidence.certificates,
            nonce=nonce,
            roots=roots,
            now=now,
            kind="switch" if evidence.kind in _SWITCHES else "gpu",
            ocsp=answers,
        )
    except VerifyError as error:
        raise type(error)(f"device {n}: {error}") from error  # collateral that is lacking stays that
    if claims.architecture != evidence.kind:
        raise VerifyError(
            f"device {n}: called {evidence.kind[:32]!a}, its certificates say {claims.architecture}"
        )
    return claims


def _golden(
    claims: Sequence[GPUClaims], collateral: Collateral, roots: Roots, now: datetime
) -> dict[str, GoldenValues]:
    """Every manifest that a device asks for and the collateral has, each verified once."""
    answers = _answers(collateral, NVIDIA_RIM_OCSP)
    wanted = {name for one in claims for name in (one.driver_rim_id, one.vbios_rim_id) if name is not None}
    found = {name: collateral.find(f"{NVIDIA_RIM}/{name}") for name in sorted(wanted)}
    return {
        name: verify_rim(xml, roots=roots, now=now, expired_signer="accept", ocsp=answers)
        for name, xml in found.items()
        if xml is not None
    }


def _measured(claims: GPUClaims, golden: dict[str, GoldenValues]) -> bool:
    """Whether there was something to compare with; VerifyError when the comparison fails."""
    vbios = golden.get(claims.vbios_rim_id)
    driver = golden.get(claims.driver_rim_id) if claims.driver_rim_id is not None else None
    if vbios is None or (driver is None and claims.driver_rim_id is not None):
        return False
    compare(claims, driver, vbios)
    return True


def _answers(collateral: Collateral, kind: str) -> Answers | None:
    responses = tuple(data for name, data in collateral if name.startswith(f"{kind}/"))
    return Answers(responses, max_age=_ANY_AGE) if responses else None
