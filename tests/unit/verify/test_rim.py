"""Mirrors strongroom/verify/rim.py."""

from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.spdm import Opaque, SPDMReport
from strongroom.verify.nvidia import GPUClaims, verify_device
from strongroom.verify.ocsp import Answers
from strongroom.verify.rim import Comparison, GoldenValues, compare, verify_rim
from strongroom.verify.roots import PRODUCTION
from tests import VECTORS
from tests.fakes.nvidia import (
    DRIVER,
    DRIVER_INDICES,
    NOW,
    VBIOS,
    VBIOS_INDICES,
    Device,
    content,
    golden,
    issue,
    manifest,
    nvidia,
    simulated,
    vectors,
)

NV: Final = nvidia()
XML: Final = NV.driver_rim()
NONCE: Final = bytes(range(32))
GPU: Final = NV.device()
SWITCH: Final = NV.device(kind="switch")
ALL: Final = tuple(sorted({*DRIVER_INDICES, *VBIOS_INDICES}))


def verify(xml: bytes = XML, *, now: datetime = NOW, **changes: Any) -> GoldenValues:
    arguments: dict[str, Any] = {"roots": NV.roots(), "now": now}
    return verify_rim(xml, **arguments | changes)


def claims(device: Device = GPU, **changes: Any) -> GPUClaims:
    report = device.report(NONCE, **changes)
    return verify_device(report, device.pem, nonce=NONCE, roots=NV.roots(), now=NOW, kind=device.kind)


DRIVER_RIM: Final = verify()
VBIOS_RIM: Final = verify(NV.vbios_rim())


def test_golden_values_are_what_the_manifest_says() -> None:
    assert (DRIVER_RIM.product, DRIVER_RIM.version) == ("GH100", DRIVER)
    assert DRIVER_RIM.values == {index: (golden("GH100", index),) for index in DRIVER_INDICES}
    assert DRIVER_RIM.sha256 == sha256(XML).digest()
    assert DRIVER_RIM.simulated and DRIVER_RIM.root_sha256 == sha256(NV.rim[0].der).digest()
    assert DRIVER_RIM.good_until == NOW + timedelta(days=30)
    assert (DRIVER_RIM.expired, DRIVER_RIM.revocation) == ((), ())
    assert DRIVER_RIM.not_checked == ("revocation of the rim signer: no ocsp answers given",)


REAL: Final = vectors("nvidia-rim", "nvidia-rim-negative")


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_real_manifests_give_the_listed_verdict(vector: dict[str, Any]) -> None:
    expect, xml = vector["expect"], content(vector, "rim")
    signer = datetime.fromisoformat(f"{expect['certificates'][0][1]}T00:00:00+00:00") + timedelta(days=30)
    if "reject" in expect:
        why = "signature is not its" if expect["digest_ok"] else "its content has another digest"
        with pytest.raises(VerifyError, match=why):
            verify(xml, roots=PRODUCTION, now=signer)
        return
    rim = verify(xml, roots=PRODUCTION, now=signer)
    assert (rim.product, rim.version, list(rim.values)) == (
        expect["product"],
        expect["version"],
        expect["active_indices"],
    )
    assert not rim.simulated
    later = rim.good_until + timedelta(days=1)
    with pytest.raises(VerifyError, match=r"rim sign(er|ing ca): expired"):
        verify(xml, roots=PRODUCTION, now=later)
    first_to_end = min(range(4), key=lambda n: expect["certificates"][n][2])
    accepted = verify(xml, roots=PRODUCTION, now=later, expired_signer="accept")
    assert accepted.expired == (("rim signer", "rim signing ca")[first_to_end],)


REPORTS: Final = [vector for vector in vectors("nvidia-report") if "vbios_rim" in vector["files"]]


@pytest.mark.parametrize("vector", REPORTS, ids=lambda vector: vector["id"])
def test_real_reports_match_their_manifests(vector: dict[str, Any]) -> None:
    report = SPDMReport.parse(content(vector, "report"))
    kind: Any = "gpu" if "driver_rim" in vector["files"] else "switch"
    found = verify_device(
        report,
        content(vector, "cert_chain"),
        nonce=report.nonce,
        roots=PRODUCTION,
        now=NOW,
        kind=kind,
        missing_fwid="accept",
    )
    rims = {
        name: verify(content(vector, name), roots=PRODUCTION, expired_signer="accept")
        for name in ("driver_rim", "vbios_rim")
        if name in vector["files"]
    }
    comparison = compare(found, rims.get("driver_rim"), rims["vbios_rim"])
    assert len(comparison.matched) == vector["expect"]["rim_comparison"]["active_golden_values"]
    assert comparison.excused == ()
    if kind == "gpu":
        other = (VECTORS / "nvidia/rim/vbios_1010_0200_882_96005E0001_prod.swidtag").read_bytes()
        older = verify(other, roots=PRODUCTION, expired_signer="accept")
        with pytest.raises(VerifyError, match=r"indices \[1, 2, 3, 9\] differ"):
            compare(found, rims["driver_rim"], older)


def test_everything_matches() -> None:
    assert compare(claims(), DRIVER_RIM, VBIOS_RIM) == Comparison(ALL, ())
    switch = verify(NV.switch_rim())
    assert compare(claims(SWITCH), None, switch) == Comparison(tuple(range(31)), ())


@pytest.mark.parametrize("index", ALL)
def test_every_golden_index_counts(index: int) -> None:
    with pytest.raises(VerifyError, match=rf"gpu measurements: indices \[{index}\] differ"):
        compare(claims(measured={index: bytes(48)}), DRIVER_RIM, VBIOS_RIM)


def test_all_differing_indices_are_named_and_uncovered_ones_ignored() -> None:
    with pytest.raises(VerifyError, match=r"indices \[0, 7, 40\] differ"):
        compare(
            claims(measured={0: bytes(48), 7: bytes(48), 40: bytes(48), 50: bytes(48)}), DRIVER_RIM, VBIOS_RIM
        )
    assert compare(claims(measured={50: bytes(48)}), DRIVER_RIM, VBIOS_RIM).matched == ALL


def test_any_alternative_will_do_and_a_prefix_will_not() -> None:
    rim = verify(NV.driver_rim(values={7: [bytes(48), golden("GH100", 7)]}))
    assert compare(claims(), rim, VBIOS_RIM).matched == ALL
    with pytest.raises(VerifyError, match=r"indices \[7\] differ"):
        compare(claims(measured={7: golden("GH100", 7)[:47]}), rim, VBIOS_RIM)


@pytest.mark.parametrize(("status", "excused"), [(b"\x55", True), (b"\xaa", False), (None, False)])
def test_the_decoder_is_excused_only_while_it_is_off(status: bytes | None, excused: bool) -> None:
    found = claims(measured={35: bytes(48)}, opaque={Opaque.NVDEC0_STATUS: status})
    if not excused:
        with pytest.raises(VerifyError, match=r"indices \[35\] differ"):
            compare(found, DRIVER_RIM, VBIOS_RIM)
        return
    assert compare(found, DRIVER_RIM, VBIOS_RIM).excused == (35,)
    with pytest.raises(VerifyError, match=r"indices \[36\] differ"):
        compare(
            claims(measured={36: bytes(48)}, opaque={Opaque.NVDEC0_STATUS: status}), DRIVER_RIM, VBIOS_RIM
        )


@pytest.mark.parametrize(
    ("driver", "vbios", "why"),
    [
        (None, VBIOS_RIM, "driver rim: missing, want one"),
        (
            replace(DRIVER_RIM, version="580.95.06"),
            VBIOS_RIM,
            "driver rim: made for version 580.95.06, the device",
        ),
        (
            DRIVER_RIM,
            replace(VBIOS_RIM, version="96"),
            "vbios rim: made for version 96, the device has 96.00.9F.00.04",
        ),
        (replace(DRIVER_RIM, product="GB100"), VBIOS_RIM, "driver rim: made for GB100, the device is GH100"),
        (DRIVER_RIM, replace(VBIOS_RIM, product="LS10"), "vbios rim: made for LS10"),
        (replace(DRIVER_RIM, simulated=False), VBIOS_RIM, "driver rim: simulated values for genuine silicon"),
        (
            DRIVER_RIM,
            replace(VBIOS_RIM, values={7: (bytes(48),)}),
            r"vbios rim: active indices \[7\] stand in the driver",
        ),
        (replace(DRIVER_RIM, values={99: (bytes(48),)}), VBIOS_RIM, r"indices \[99\] differ"),
    ],
)
def test_manifests_of_something_else_are_refused(driver: Any, vbios: GoldenValues, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        compare(claims(), driver, vbios)


def test_a_switch_has_no_driver_manifest() -> None:
    with pytest.raises(VerifyError, match="driver rim: given, want none for a switch"):
        compare(claims(SWITCH), DRIVER_RIM, VBIOS_RIM)


@pytest.mark.guarantee("G18")
def test_production_roots_refuse_simulated_values() -> None:
    with pytest.raises(VerifyError, match="want the pinned nvidia_rim root"):
        verify(roots=PRODUCTION)


def test_an_expired_signer_is_accepted_by_name_and_an_early_one_never() -> None:
    late = NOW + timedelta(days=40)
    with pytest.raises(VerifyError, match="rim signer: expired"):
        verify(now=late)
    rim = verify(now=late, expired_signer="accept")
    assert rim.expired == ("rim signer",) and rim.good_until < late
    assert verify(now=NOW + timedelta(days=400), expired_signer="accept").expired == (
        "rim signer",
        "rim signing ca",
    )
    with pytest.raises(VerifyError, match="rim signer: valid from"):
        verify(now=NOW - timedelta(days=800), expired_signer="accept")
    with pytest.raises(VerifyError, match="rim root: expired"):
        verify(now=NOW + timedelta(days=99999), expired_signer="accept")


def test_revocation_of_the_signer() -> None:
    rim = verify(ocsp=Answers(NV.answers(NV.rim[::-1])))
    assert [status.status for status in rim.revocation] == ["good"] * 3
    assert rim.not_checked == ()
    with pytest.raises(VerifyError, match="no answer names RIM signer"):
        verify(ocsp=Answers(NV.answers(NV.rim[:-1][::-1])))


def test_a_signer_of_someone_else_is_refused() -> None:
    text = manifest("GH100", DRIVER, DRIVER_INDICES, 64)
    root, ca, l3, signer = NV.rim
    for chain, why in (
        ((root, ca, signer), "3 certificates, want 4"),
        ((root, ca, l3, issue("other", None, ca=False)), "rim signer: issued by other"),
        ((root, ca, l3, l3), "rim signer: is for issuing certificates"),
        ((root, ca, issue(simulated("Reference Value L3"), ca), signer), "rim signer: signature is not"),
        (NV.device().chain[1:][::-1], "is for issuing certificates"),
    ):
        with pytest.raises(VerifyError, match=why):
            verify(NV.sign_rim(text, chain=chain))


def test_a_manifest_changed_after_signing_is_refused() -> None:
    text = XML.decode()
    with pytest.raises(VerifyError, match=f"rim {DRIVER}: its content has another digest"):
        verify(text.replace(golden("GH100", 7).hex(), "00" * 48).encode())
    other = NV.vbios_rim().decode()
    swapped = text[: text.index("<ds:Signature ")] + other[other.index("<ds:Signature ") :]
    with pytest.raises(VerifyError, match="its content has another digest"):
        verify(swapped.encode())
    assert VBIOS in other


def test_a_changed_bit_is_refused() -> None:
    for at in range(0, len(XML), 7):
        changed = bytearray(XML)
        changed[at] ^= 1 << at % 8
        try:
            rim = verify(bytes(changed))
        except (VerifyError, FormatError):
            continue
        # Quotation marks and spaces may be spelled otherwise: the canonical form, and so the meaning, is the same.
        assert rim.values == DRIVER_RIM.values and rim.version == DRIVER
