"""Is a GPU's or NVSwitch's report genuine? Nonce, chain to a pinned root, kind of device, firmware, signature.

What the report says is not judged here; whether its measurements are the right ones is strongroom.verify.rim's
question, whether several devices make one machine strongroom.verify.gpus's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from cryptography import x509

from strongroom.errors import VerifyError
from strongroom.evidence.dice import COMPOSITE_DEVICE_ID, TCB_INFO, fwids
from strongroom.evidence.nvidia_certs import parse_chain
from strongroom.evidence.spdm import NONCE_SIZE, PDI_SIZE, SPDMReport
from strongroom.verify.nvidia_chain import Chain, certificate, check_signed, common_name, shown, verify_chain
from strongroom.verify.ocsp import Answers, Status, check_statuses
from strongroom.verify.roots import SIMULATED_LABEL, Anchor, Roots

Kind = Literal["gpu", "switch"]
Architecture = Literal["hopper", "blackwell", "ls10"]

PROTECTED_PCIE: Final = 2  # feature flag

_LINKS: Final = ("attestation key", "device", "provisioner ca", "identity ca", "device root")
_BLOCKS: Final = {"gpu": 64, "switch": 31}
_LEAF: Final = re.compile(r"((GH1|GB[12])[0-9]{2}|LS_10) [A-Z][0-9]{2} (GSP|FSP) FMC LF")
_ARCHITECTURES: Final[dict[str, tuple[Kind, Architecture]]] = {
    "GH": ("gpu", "hopper"),
    "GB": ("gpu", "blackwell"),
    "LS": ("switch", "ls10"),
}
_OPAQUE_VERSIONS: Final = (None, 0, 1)
_DEVICE_CLASS_BYTES: Final = 1  # in front of the PDI in a device certificate's serial number


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUClaims:
    """Verified facts about one device. Only `verify_device` makes these outside of tests."""

    kind: Kind
    architecture: Architecture
    chip: str  # "GH100", "GB100", "LS10"
    model: str  # the device certificate's name, NVIDIA's "hwmodel"
    simulated: bool
    root_sha256: bytes
    serial: int  # of the attestation key's certificate; in decimal NVIDIA's "ueid"
    device_serial: int  # of the device's certificate. Both identify a machine: do not log them in full
    pdi: bytes  # 8: by this name switches know their GPUs and GPUs their switches
    nonce: bytes
    driver_version: str | None  # None on a switch
    vbios_version: str
    project: str | None
    project_sku: str | None
    chip_sku: str | None
    board_id: int | None
    fwid: bytes | None  # None where old firmware does not report it and the caller accepts that
    nvdec0_enabled: bool | None
    protected_pcie: bool
    feature_flag: int | None
    switch_pdis: frozenset[bytes]  # the switches a GPU is linked to
    gpu_pdis: frozenset[bytes]  # the GPUs a switch is linked to
    measurements: tuple[bytes, ...]
    revocation: tuple[Status, ...]  # of device, provisioner ca, identity ca; empty when no answers were given
    not_checked: tuple[str, ...]

    @property
    def driver_rim_id(self) -> str | None:
        """Under this name NVIDIA publishes the driver's reference values; None on a switch."""
        if self.kind == "switch":
            return None
        prefix = "NV_GPU_DRIVER" if self.architecture == "hopper" else "NV_GPU_CC_DRIVER"
        return f"{prefix}_{self.chip}_{self.driver_version}"

    @property
    def vbios_rim_id(self) -> str:
        version = self.vbios_version.replace(".", "").upper()
        if self.kind == "switch":
            return f"NV_SWITCH_BIOS_5612_0002_890_{version}"  # the one board LS10 is built on
        return f"NV_GPU_VBIOS_{self.project}_{self.project_sku}_{self.chip_sku}_{version}"

    @property
    def ocsp_at(self) -> datetime | None:
        """The oldest answer about the chain; None when none was given."""
        return min((status.this_update for status in self.revocation), default=None)


def verify_device(
    report: SPDMReport,
    chain: bytes | Sequence[bytes],
    *,
    nonce: bytes,
    roots: Roots,
    now: datetime,
    kind: Kind = "gpu",
    ocsp: Answers | None = None,
    missing_fwid: Literal["refuse", "accept"] = "refuse",
) -> GPUClaims:
    """The claims of a report made for `nonce`, or VerifyError at the first step that does not hold.

    `chain` is PEM, concatenated DER, or the certificates' DER one by one, leaf first. GPUs and switches hang
    below the same certificates, so `kind` is asked for, never found. Firmware before the FWID was reported
    needs `missing_fwid="accept"`; a switch never reports one.
    """
    what = f"{kind} report"
    if len(nonce) != NONCE_SIZE:
        raise VerifyError(f"{what}: nonce asked for is {len(nonce)} bytes, want {NONCE_SIZE}")
    if report.nonce != nonce:
        raise VerifyError(f"{what}: made for another nonce")
    if (found := len(report.measurements)) != _BLOCKS[kind]:
        raise VerifyError(f"{what}: {found} measurement blocks, want {_BLOCKS[kind]}")
    ders = parse_chain(chain) if isinstance(chain, bytes) else tuple(chain)
    if len(ders) != len(_LINKS):
        raise VerifyError(f"{what}: chain of {len(ders)} certificates, want {len(_LINKS)}")
    loaded = [certificate(der, name) for der, name in zip(ders, _LINKS, strict=True)]
    verified = verify_chain(loaded, anchor=Anchor.NVIDIA_DEVICE, roots=roots, now=now, names=_LINKS)
    chip, architecture = _family(verified, kind)
    revocation = check_statuses(verified.certificates[1:], ocsp, now=now) if ocsp is not None else ()
    fwid = _firmware(report, loaded[0], required=kind == "gpu" and missing_fwid == "refuse")
    check_signed(report.signed_part, report.signature, loaded[0], what)
    return _claims(report, verified, (kind, architecture, chip), revocation, fwid)


def _family(chain: Chain, kind: Kind) -> tuple[str, Architecture]:
    leaf, device = (common_name(link.subject) for link in chain.certificates[:2])
    if chain.simulated:
        device = device.removesuffix(f" {SIMULATED_LABEL}")
    if not (match := _LEAF.fullmatch(leaf)):
        raise VerifyError(
            f"attestation key: name is {shown(chain.certificates[0].subject)}, of no known device"
        )
    if device != leaf.replace("FMC LF", "BROM"):
        raise VerifyError(
            f"device: name is {shown(chain.certificates[1].subject)}, its key belongs to {leaf}"
        )
    found, architecture = _ARCHITECTURES[leaf[:2]]
    if found != kind:
        raise VerifyError(f"attestation key: name is {leaf}, a {found}'s, want a {kind}'s")
    return match[1].replace("_", ""), architecture


def _firmware(report: SPDMReport, leaf: x509.Certificate, *, required: bool) -> bytes | None:
    certified = [
        fwids(extension.oid.dotted_string, extension.value.value)
        for extension in leaf.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
        and extension.oid.dotted_string in (COMPOSITE_DEVICE_ID, TCB_INFO)
    ]
    if len(certified) != 1:
        raise VerifyError(f"attestation key: {len(certified)} extensions name its firmware, want one")
    if report.fwid is None:
        if required:
            raise VerifyError("gpu report: does not say its firmware id, want the certified one")
        return None
    if report.fwid != certified[0][0]:
        raise VerifyError("spdm report: firmware id differs from the one its key is certified for")
    return report.fwid


def _claims(
    report: SPDMReport,
    chain: Chain,
    device: tuple[Kind, Architecture, str],
    revocation: tuple[Status, ...],
    fwid: bytes | None,
) -> GPUClaims:
    kind, architecture, chip = device
    version = report.opaque_data_version
    if version not in _OPAQUE_VERSIONS:
        raise VerifyError(f"{kind} report: opaque data version is {version}, want 0 or 1")
    vbios, driver = report.vbios_version, report.driver_version
    if not vbios or (not driver and kind == "gpu"):
        raise VerifyError(f"{kind} report: does not say its driver and vbios versions")
    identity = chain.certificates[1]
    pdi = _pdi(identity.serial_number)
    seen = frozenset(report.switch_pdis) - {bytes(PDI_SIZE)}
    if kind == "switch" and seen != {pdi}:
        raise VerifyError("switch report: its identity differs from its device certificate's")
    open_points = {
        "revocation of the device: no ocsp answers given": not revocation,
        "firmware id: the report has none": fwid is None,
    }
    return GPUClaims(
        kind=kind,
        architecture=architecture,
        chip=chip,
        model=common_name(identity.subject),
        simulated=chain.simulated,
        root_sha256=chain.root_sha256,
        serial=chain.certificates[0].serial_number,
        device_serial=identity.serial_number,
        pdi=pdi,
        nonce=report.nonce,
        driver_version=driver,
        vbios_version=vbios,
        project=report.project,
        project_sku=report.project_sku,
        chip_sku=report.chip_sku,
        board_id=report.board_id,
        fwid=fwid,
        nvdec0_enabled=report.nvdec0_enabled,
        protected_pcie=_is_protected(report),
        feature_flag=report.feature_flag,
        switch_pdis=seen if kind == "gpu" else frozenset(),
        gpu_pdis=frozenset(report.gpu_pdis) - {bytes(PDI_SIZE)},
        measurements=tuple(block.value for block in report.measurements),
        revocation=revocation,
        not_checked=tuple(point for point, is_open in open_points.items() if is_open),
    )


def _pdi(serial: int) -> bytes:
    size = (serial.bit_length() + 7) // 8
    if size != _DEVICE_CLASS_BYTES + PDI_SIZE:
        raise VerifyError(f"device: serial number is {size} bytes, want {_DEVICE_CLASS_BYTES + PDI_SIZE}")
    return serial.to_bytes(size, "big")[_DEVICE_CLASS_BYTES:]


def _is_protected(report: SPDMReport) -> bool:
    """Two fields say it, the older one first; where both do they must agree."""
    flagged = report.feature_flag == PROTECTED_PCIE
    if report.feature_flag is not None and report.protected_pcie not in (None, flagged):
        raise VerifyError("gpu report: its two statements on protected pcie differ")
    return flagged or bool(report.protected_pcie)
