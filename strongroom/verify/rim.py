"""Are reference values genuine, and does a device measure what they say?

Chain to NVIDIA's root of reference values, digest of the manifest, signature; then every active index of the
driver's and the VBIOS's manifest against the device's blocks. Golden index i is block i + 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256, sha384
from typing import Final, Literal

from strongroom.errors import VerifyError
from strongroom.evidence.rim import RIM
from strongroom.verify.nvidia import GPUClaims
from strongroom.verify.nvidia_chain import certificate, check_signed, verify_chain
from strongroom.verify.ocsp import Answers, Status, check_statuses
from strongroom.verify.roots import Anchor, Roots

_LINKS: Final = ("rim signer", "rim signing ca", "reference value ca", "rim root")
_NVDEC0: Final = 35  # measures nothing while the decoder is off


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenValues:
    """A verified manifest. It depends on `now` only through its certificates: keep it under its own `sha256`."""

    product: str
    version: str
    values: Mapping[int, tuple[bytes, ...]]  # index, from 0, to the digests it may have
    sha256: bytes  # of the manifest's bytes
    simulated: bool
    root_sha256: bytes
    good_until: (
        datetime  # the first end of validity in its chain; in the past when an expired signer was accepted
    )
    expired: tuple[str, ...]  # certificates beyond their time that were accepted
    revocation: tuple[Status, ...]  # of the signer and its issuers; empty when no answers were given
    not_checked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Golden indices that matched, and those that may differ on this device and did."""

    matched: tuple[int, ...]
    excused: tuple[int, ...]


def verify_rim(
    xml: bytes,
    *,
    roots: Roots,
    now: datetime,
    expired_signer: Literal["refuse", "accept"] = "refuse",
    ocsp: Answers | None = None,
) -> GoldenValues:
    """The golden values of a manifest (RIM as SWID XML), or VerifyError at the first step that does not hold.

    Signers are certified for two years while their manifests stay in use: "accept" takes an expired signer or
    intermediate, and says so in `expired`. The root's own time always counts.
    """
    rim = RIM.parse(xml)
    if sha384(rim.content).digest() != rim.digest:
        raise VerifyError(f"rim {rim.version}: its content has another digest than the signed one")
    chain = verify_chain(
        [certificate(der, "rim certificate") for der in rim.certificates],
        anchor=Anchor.NVIDIA_RIM,
        roots=roots,
        now=now,
        names=_LINKS,
        accept_expired=expired_signer == "accept",
    )
    revocation = check_statuses(chain.certificates, ocsp, now=now) if ocsp is not None else ()
    check_signed(rim.signed_info, rim.signature, chain.certificates[0], f"rim {rim.version}")
    return GoldenValues(
        product=rim.product,
        version=rim.version,
        values=rim.golden,
        sha256=sha256(xml).digest(),
        simulated=chain.simulated,
        root_sha256=chain.root_sha256,
        good_until=min(link.not_valid_after_utc for link in chain.certificates),
        expired=chain.expired,
        revocation=revocation,
        not_checked=() if ocsp is not None else ("revocation of the rim signer: no ocsp answers given",),
    )


def compare(claims: GPUClaims, driver: GoldenValues | None, vbios: GoldenValues) -> Comparison:
    """What matched, or VerifyError naming every index that differs. A switch has no driver manifest."""
    if (driver is None) != (claims.kind == "switch"):
        want = "none for a switch" if claims.kind == "switch" else "one"
        raise VerifyError(f"driver rim: {'missing' if driver is None else 'given'}, want {want}")
    golden: dict[int, tuple[bytes, ...]] = {}
    for rim, what, version in (
        (driver, "driver", claims.driver_version),
        (vbios, "vbios", claims.vbios_version),
    ):
        if rim is None:
            continue
        _check_subject(rim, claims, what, version)
        if both := sorted(golden.keys() & rim.values.keys()):
            raise VerifyError(f"{what} rim: active indices {both} stand in the driver rim too")
        golden |= rim.values
    differing = [index for index, values in sorted(golden.items()) if _measured(claims, index) not in values]
    excused = [index for index in differing if index == _NVDEC0 and claims.nvdec0_enabled is False]
    if wrong := [index for index in differing if index not in excused]:
        raise VerifyError(f"{claims.kind} measurements: indices {wrong} differ from the golden values")
    matched = tuple(index for index in sorted(golden) if index not in excused)
    return Comparison(matched, tuple(excused))


def _check_subject(rim: GoldenValues, claims: GPUClaims, what: str, version: str | None) -> None:
    if rim.simulated != claims.simulated:
        raise VerifyError(f"{what} rim: simulated values for genuine silicon, or the other way round")
    if rim.product != claims.chip:
        raise VerifyError(f"{what} rim: made for {rim.product}, the device is {claims.chip}")
    if rim.version != version:
        raise VerifyError(f"{what} rim: made for version {rim.version}, the device has {version}")


def _measured(claims: GPUClaims, index: int) -> bytes | None:
    return claims.measurements[index] if index < len(claims.measurements) else None
