"""Mirrors strongroom/verify/nvidia.py."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.spdm import Opaque, SPDMReport
from strongroom.verify.nvidia import GPUClaims, verify_device
from strongroom.verify.ocsp import Answers
from strongroom.verify.roots import PRODUCTION, SIMULATED_LABEL
from tests.fakes.nvidia import (
    DRIVER,
    FWID,
    NOW,
    VBIOS,
    Device,
    content,
    fwid_extension,
    golden,
    issue,
    nvidia,
    simulated,
    vectors,
)

NV: Final = nvidia()
NONCE: Final = bytes(range(32))
GPU: Final = NV.device()
SWITCH: Final = NV.device(kind="switch")
REPORT: Final = GPU.report(NONCE)


def verify(report: SPDMReport = REPORT, device: Device = GPU, **changes: Any) -> GPUClaims:
    arguments: dict[str, Any] = {"nonce": NONCE, "roots": NV.roots(), "now": NOW, "kind": device.kind}
    return verify_device(report, device.pem, **arguments | changes)


def test_claims_are_what_the_report_says() -> None:
    claims = verify(ocsp=Answers(NV.answers(GPU.chain[1:])))
    assert (claims.kind, claims.architecture, claims.chip) == ("gpu", "hopper", "GH100")
    assert claims.simulated and claims.root_sha256 == sha256(NV.device_root.der).digest()
    assert claims.model == f"GH100 A01 GSP BROM {SIMULATED_LABEL}"
    assert claims.serial == GPU.chain[0].certificate.serial_number
    assert claims.device_serial == GPU.chain[1].certificate.serial_number
    assert (claims.pdi, claims.nonce, claims.fwid) == (GPU.pdi, NONCE, FWID)
    assert (claims.driver_version, claims.vbios_version) == (DRIVER, VBIOS)
    assert (claims.project, claims.project_sku, claims.chip_sku, claims.board_id) == (
        "1010",
        "0200",
        "882",
        0x3B1,
    )
    assert (claims.nvdec0_enabled, claims.protected_pcie, claims.feature_flag) == (True, False, 0)
    assert claims.measurements == tuple(golden("GH100", n) for n in range(64))
    assert [status.status for status in claims.revocation] == ["good"] * 3
    assert claims.ocsp_at == NOW - timedelta(hours=1)
    assert claims.not_checked == ()
    assert claims.driver_rim_id == "NV_GPU_DRIVER_GH100_580.95.05"
    assert claims.vbios_rim_id == "NV_GPU_VBIOS_1010_0200_882_96009F0004"


def test_other_devices() -> None:
    blackwell = NV.device(chip="GB100")
    claims = verify(blackwell.report(NONCE), blackwell)
    assert (claims.architecture, claims.driver_rim_id) == ("blackwell", "NV_GPU_CC_DRIVER_GB100_580.95.05")
    claims = verify(SWITCH.report(NONCE), SWITCH)
    assert (claims.architecture, claims.chip, claims.pdi) == ("ls10", "LS10", SWITCH.pdi)
    assert (claims.driver_rim_id, claims.vbios_rim_id) == (None, "NV_SWITCH_BIOS_5612_0002_890_9610550001")
    assert claims.ocsp_at is None
    assert claims.not_checked[0] == "revocation of the device: no ocsp answers given"


def test_der_serves_as_well_as_pem() -> None:
    for chain in (b"".join(GPU.ders), GPU.ders):
        assert verify_device(REPORT, chain, nonce=NONCE, roots=NV.roots(), now=NOW) == verify()


REAL: Final = vectors("nvidia-report", "nvidia-report-negative")


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_real_reports_give_the_listed_verdict(vector: dict[str, Any]) -> None:
    expect = vector["expect"]
    report = SPDMReport.parse(content(vector, "report"), trailing="zeros")
    nonce = bytes.fromhex(expect["request"]["nonce"]) if "request" in expect else report.nonce
    is_switch = len(report.measurements) == 31
    arguments: dict[str, Any] = {"roots": PRODUCTION, "now": NOW, "kind": "switch" if is_switch else "gpu"}

    def verified(**changes: Any) -> GPUClaims:
        return verify_device(report, content(vector, "cert_chain"), nonce=nonce, **arguments | changes)

    if not expect["signature_valid"]:
        with pytest.raises(VerifyError, match=r"signature is not its certificate's|firmware id differs"):
            verified(missing_fwid="accept")
        return
    if expect["fwid_match"] is None and not is_switch:
        with pytest.raises(VerifyError, match="does not say its firmware id"):
            verified()
    claims = verified(missing_fwid="accept")
    assert (claims.model, str(claims.serial)) == (expect["model"], expect["ueid"])
    assert claims.simulated is not expect["root_pinned"]
    assert (claims.fwid is not None) is bool(expect["fwid_match"])
    assert (claims.driver_version or "", claims.vbios_version) == (
        expect["driver_version"],
        expect["vbios_version"],
    )
    with pytest.raises(VerifyError, match=r"measurement blocks|a switch's, want a gpu's"):
        verified(kind="gpu" if is_switch else "switch")


@pytest.mark.guarantee("G7")
def test_a_report_for_another_nonce_is_refused() -> None:
    with pytest.raises(VerifyError, match="gpu report: made for another nonce"):
        verify(nonce=bytes(32))
    with pytest.raises(VerifyError, match="nonce asked for is 31 bytes, want 32"):
        verify(nonce=NONCE[:31])
    with pytest.raises(VerifyError, match="signature is not"):
        verify(replace(REPORT, nonce=bytes(32)), nonce=bytes(32))


@pytest.mark.guarantee("G18")
def test_production_roots_refuse_simulated_devices() -> None:
    with pytest.raises(VerifyError, match="want the pinned nvidia_device root"):
        verify(roots=PRODUCTION)
    plain = issue("GH100 A01 GSP BROM", NV.provisioner, serial=GPU.chain[1].certificate.serial_number)
    leaf = issue("GH100 A01 GSP FMC LF", plain, ca=False, extensions=[fwid_extension(FWID)])
    with pytest.raises(VerifyError, match="device: simulated issuer, name lacks the words"):
        verify_with(leaf, plain)


def verify_with(*first: Any, report: SPDMReport | None = None, **changes: Any) -> GPUClaims:
    """A GPU whose first certificates are these."""
    device = replace(GPU, chain=(*first, *GPU.chain[len(first) :]))
    return verify(report or device.report(NONCE), device, **changes)


BROM: Final = GPU.chain[1]
NAME: Final = "GH100 A01 GSP FMC LF"


@pytest.mark.parametrize(
    ("name", "extensions", "why"),
    [
        ("GH100 A01 GSP FMC", [fwid_extension(FWID)], "name is GH100 A01 GSP FMC, of no known device"),
        ("AD102 A01 GSP FMC LF", [fwid_extension(FWID)], "of no known device"),
        (
            "GH100 A02 GSP FMC LF",
            [fwid_extension(FWID)],
            "device: name is GH100 A01 GSP BROM .* belongs to GH100 A02",
        ),
        (NAME, [], "0 extensions name its firmware, want one"),
        (
            NAME,
            [fwid_extension(FWID), fwid_extension(FWID, composite=False)],
            "2 extensions name its firmware",
        ),
        (NAME, [fwid_extension(bytes(48))], "firmware id differs from the one its key is certified for"),
        (NAME, [fwid_extension(bytes(48), FWID, composite=False)], "firmware id differs"),
    ],
)
def test_the_leaf_must_be_such_a_devices(name: str, extensions: Any, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify_with(issue(name, BROM, ca=False, extensions=extensions))


def test_a_switch_is_no_gpu_even_with_as_many_blocks() -> None:
    leaf, brom = SWITCH.chain[:2]
    device = replace(SWITCH, kind="gpu")
    report = GPU.report(NONCE)
    with pytest.raises(VerifyError, match="name is LS_10 A01 FSP FMC LF, a switch's, want a gpu's"):
        verify_with(leaf, brom, report=device.sign(report))
    with pytest.raises(VerifyError, match="gpu report: 31 measurement blocks, want 64"):
        verify(SWITCH.report(NONCE), SWITCH, kind="gpu")


def test_a_chain_of_another_length_is_refused() -> None:
    for chain, why in ((GPU.ders[1:], "chain of 4"), ((*GPU.ders, GPU.ders[4]), "chain of 6")):
        with pytest.raises(VerifyError, match=f"{why} certificates, want 5"):
            verify_device(REPORT, chain, nonce=NONCE, roots=NV.roots(), now=NOW)
    with pytest.raises(VerifyError, match="attestation key: is for issuing"):
        verify_device(REPORT, (GPU.ders[1], *GPU.ders[1:]), nonce=NONCE, roots=NV.roots(), now=NOW)


def test_another_devices_chain_is_refused() -> None:
    with pytest.raises(VerifyError, match="gpu report: signature is not its certificate's"):
        verify(REPORT, NV.device(2))


def test_a_device_serial_holds_a_pdi() -> None:
    brom = issue(simulated("GH100 A01 GSP BROM"), NV.provisioner, serial=7)
    leaf = issue(NAME, brom, ca=False, extensions=[fwid_extension(FWID)])
    with pytest.raises(VerifyError, match="device: serial number is 1 bytes, want 9"):
        verify_with(leaf, brom)


@pytest.mark.parametrize(
    ("opaque", "why"),
    [
        ({Opaque.FWID: None}, "does not say its firmware id"),
        ({Opaque.FWID: bytes(48)}, "firmware id differs"),
        ({Opaque.OPAQUE_DATA_VERSION: b"\2\0"}, "opaque data version is 2, want 0 or 1"),
        ({Opaque.DRIVER_VERSION: None}, "does not say its driver and vbios versions"),
        ({Opaque.VBIOS_VERSION: None}, "does not say its driver and vbios versions"),
        ({Opaque.PROTECTED_PCIE_STATUS: b"\xaa"}, "its two statements on protected pcie differ"),
        ({Opaque.FEATURE_FLAG: b"\2\0"}, "its two statements on protected pcie differ"),
    ],
)
def test_unknown_or_missing_means_no(opaque: dict[Opaque, bytes | None], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(GPU.report(NONCE, opaque=opaque))


def test_old_firmware_is_accepted_by_name_only() -> None:
    claims = verify(GPU.report(NONCE, opaque={Opaque.FWID: None}), missing_fwid="accept")
    assert claims.fwid is None and "firmware id: the report has none" in claims.not_checked
    with pytest.raises(VerifyError, match="firmware id differs"):
        verify(GPU.report(NONCE, opaque={Opaque.FWID: bytes(48)}), missing_fwid="accept")


@pytest.mark.parametrize(
    ("status", "flag", "protected"),
    [
        (b"\xaa", b"\2\0", True),
        (b"\xaa", None, True),
        (None, b"\2\0", True),
        (None, None, False),
        (None, b"\1\0", False),
    ],
)
def test_protected_pcie_is_said_in_one_field_or_in_two(
    status: bytes | None, flag: bytes | None, protected: bool
) -> None:
    opaque = {Opaque.PROTECTED_PCIE_STATUS: status, Opaque.FEATURE_FLAG: flag}
    assert verify(GPU.report(NONCE, opaque=opaque)).protected_pcie is protected


def test_a_switch_is_the_device_of_its_certificate() -> None:
    for pdi in (bytes(8), b"\1" * 8, SWITCH.pdi * 2 + b"\1" * 8):
        with pytest.raises(VerifyError, match="its identity differs from its device certificate's"):
            verify(SWITCH.report(NONCE, opaque={Opaque.SWITCH_PDI: pdi}), SWITCH)


def test_revocation_counts_when_answers_are_given() -> None:
    with pytest.raises(VerifyError, match="ocsp: no answer names"):
        verify(ocsp=Answers(()))
    with pytest.raises(VerifyError, match="no answer names GH100 A01 GSP BROM"):
        verify(ocsp=Answers(NV.answers(NV.device(2).chain[1:])))


def test_a_changed_bit_is_refused() -> None:
    data = REPORT.pack()
    for at in [*range(50), *range(50, 3500, 9), *range(3500, len(data))]:
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises((VerifyError, FormatError)):
            verify(SPDMReport.parse(bytes(changed)))
