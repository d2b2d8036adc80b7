"""Mirrors host/collateral/nvidia.py: NVIDIA's two services, played by the authority of the tests."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.collateral import NVIDIA_OCSP, NVIDIA_RIM_OCSP
from strongroom.evidence.spdm import SPDMReport
from strongroom.host.collateral.client import Client
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.fill import Outcome, fill
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest, NVIDIAStatus, statuses
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import collateral
from strongroom.host.collateral.wanted import for_nvidia_device
from strongroom.verify.nvidia import verify_device
from strongroom.verify.ocsp import Answers
from strongroom.verify.rim import compare, verify_rim
from strongroom.verify.roots import PRODUCTION, Roots
from tests.fakes.https import ok
from tests.fakes.nvidia import DRIVER, VBIOS, Device, answer, nvidia
from tests.fakes.vendors import Vendors, playing

NONCE = bytes(range(32))
DRIVER_ID = f"NV_GPU_DRIVER_GH100_{DRIVER}"
VBIOS_ID = f"NV_GPU_VBIOS_1010_0200_882_{VBIOS.replace('.', '')}"


@pytest.fixture
def roots() -> Roots:
    return nvidia().roots()


@pytest.fixture
def device() -> Device:
    return nvidia().device()


@pytest.fixture
def wanted(device: Device, roots: Roots, now: datetime) -> list[Item]:
    return for_nvidia_device(device.report(NONCE), device.pem, kind="gpu", roots=roots, now=now)


@pytest.fixture
def vendors(device: Device) -> Vendors:
    vendors = Vendors()
    vendors.manifest(DRIVER_ID, nvidia().driver_rim())
    vendors.manifest(VBIOS_ID, nvidia().vbios_rim())
    vendors.responder(device.chain, nvidia().rim[::-1])
    return vendors


def run(
    items: list[Item], tmp_path: Path, vendors: Vendors, roots: Roots, now: datetime, **options: Any
) -> tuple[list[Outcome], Store]:
    store = Store.create(tmp_path / "cache")
    with playing(tmp_path, vendors) as played:
        client = Client(services=played.services, deadline_s=0)
        return asyncio.run(fill(items, store, client, roots=roots, now=now, **options)), store


def test_what_a_gpu_takes_is_fetched_and_verifies_it(
    wanted: list[Item], tmp_path: Path, vendors: Vendors, roots: Roots, now: datetime, device: Device
) -> None:
    assert wanted[:2] == [NVIDIAManifest(DRIVER_ID), NVIDIAManifest(VBIOS_ID)] and len(wanted) == 5
    outcomes, store = run(wanted, tmp_path, vendors, roots, now)
    # Two manifests, three links of the device, and three of the one chain that signed both manifests.
    assert [outcome.state for outcome in outcomes] == ["fetched"] * 8
    kept = dict(collateral(wanted, store, roots=roots, now=now))
    answers, signers = (
        Answers(tuple(part for name, part in kept.items() if name.startswith(f"{kind}/")))
        for kind in (NVIDIA_OCSP, NVIDIA_RIM_OCSP)
    )
    report: SPDMReport = device.report(NONCE)
    claims = verify_device(report, device.pem, nonce=NONCE, roots=roots, now=now, ocsp=answers)
    driver, vbios = (
        verify_rim(kept[f"nvidia-rim/{name}"], roots=roots, now=now, ocsp=signers)
        for name in (DRIVER_ID, VBIOS_ID)
    )
    assert compare(claims, driver, vbios).matched and not claims.not_checked


def test_reference_values_are_asked_for_every_time_and_answers_after_some_hours(
    wanted: list[Item], tmp_path: Path, vendors: Vendors, roots: Roots, now: datetime
) -> None:
    run(wanted, tmp_path, vendors, roots, now - timedelta(hours=11))
    (tmp_path / "tls").rename(tmp_path / "old")
    outcomes, _ = run(wanted, tmp_path, vendors, roots, now - timedelta(hours=10))
    assert [outcome.state for outcome in outcomes] == ["fetched"] * 2 + ["fresh"] * 6
    (tmp_path / "tls").rename(tmp_path / "older")
    outcomes, _ = run(wanted, tmp_path, vendors, roots, now)
    assert [outcome.state for outcome in outcomes] == ["fetched"] * 8


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("status", [ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN])
def test_a_bad_word_is_kept_and_refuses_the_device(
    tmp_path: Path, roots: Roots, now: datetime, device: Device, status: ocsp.OCSPCertStatus
) -> None:
    vendors = Vendors()
    vendors.responder(device.chain, status=status)
    items: list[Item] = [*statuses(device.ders, "device")]
    outcomes, store = run(items, tmp_path, vendors, roots, now)
    assert [outcome.state for outcome in outcomes] == ["fetched"] * 3
    answers = Answers(tuple(store.take(item, roots=roots, now=now)["answer"] for item in items))
    with pytest.raises(VerifyError, match=r"is revoked|is not known"):
        verify_device(device.report(NONCE), device.pem, nonce=NONCE, roots=roots, now=now, ocsp=answers)


@pytest.mark.guarantee("G1")
def test_an_older_good_word_does_not_replace_a_newer_bad_one(
    tmp_path: Path, roots: Roots, now: datetime, device: Device
) -> None:
    store, item = Store.create(tmp_path), statuses(device.ders, "device")[0]
    bad = answer(*device.chain[1:3], status=ocsp.OCSPCertStatus.REVOKED, at=now - timedelta(hours=1))
    good = answer(*device.chain[1:3], at=now - timedelta(hours=2))
    store.put(Entry(item, {"answer": bad}), roots=roots, now=now)
    with pytest.raises(VerifyError, match="older than what is kept"):
        store.put(Entry(item, {"answer": good}), roots=roots, now=now)


def test_answers_about_another_and_late_ones(roots: Roots, now: datetime, device: Device) -> None:
    item = statuses(device.ders, "device")[0]
    other = nvidia().device(2)
    for body, at, why in (
        (answer(*other.chain[1:3]), now, "no answer names"),
        (answer(*device.chain[1:3]), now + timedelta(days=1), "ended"),
        (answer(*device.chain[1:3], delegate="issuer")[:-1], now, "not one answer"),
    ):
        with pytest.raises(VerifyError, match=why):
            item.examine({"answer": body}, roots=roots, now=at)
    with pytest.raises(VerifyError, match="root"):
        item.examine({"answer": answer(*device.chain[1:3])}, roots=PRODUCTION, now=now)


def test_a_question_about_what_no_issuer_signed_is_refused(
    roots: Roots, now: datetime, device: Device
) -> None:
    chain = (device.ders[0], *device.ders[2:])  # the attestation key, as if the provisioner had certified it
    item = NVIDIAStatus("device", 1, chain)
    with pytest.raises(VerifyError):
        item.examine({"answer": answer(device.chain[0], device.chain[2])}, roots=roots, now=now)


def test_a_refusal_to_answer(tmp_path: Path, roots: Roots, now: datetime, device: Device) -> None:
    item, vendors = statuses(device.ders, "device")[0], Vendors()
    vendors.posts["/"] = lambda _: ok(b"\x30\x03\x0a\x01\x06")  # "unauthorized"
    outcomes, _ = run([item], tmp_path, vendors, roots, now)
    assert "the responder answered unauthorized" in str(outcomes[0].error)


@pytest.mark.parametrize("echoes", [True, False])
def test_an_answer_to_another_question_is_refused(
    tmp_path: Path, roots: Roots, now: datetime, device: Device, echoes: bool
) -> None:
    subject, issuer = device.chain[1:3]

    def respond(body: bytes) -> bytes:
        asked = ocsp.load_der_ocsp_request(body).extensions.get_extension_for_class(x509.OCSPNonce).value
        assert len(asked.nonce) == 32
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=subject.certificate,
            issuer=issuer.certificate,
            algorithm=SHA384(),
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=now,
            next_update=now + timedelta(hours=1),
            revocation_time=None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
        builder = builder.add_extension(asked if echoes else x509.OCSPNonce(bytes(32)), critical=False)
        return ok(builder.sign(issuer.key, SHA384()).public_bytes(Encoding.DER))

    vendors = Vendors(posts={"/": respond})
    outcomes, _ = run([statuses(device.ders, "device")[0]], tmp_path, vendors, roots, now)
    assert outcomes[0].state == ("fetched" if echoes else "failed")
    assert echoes or "carries another nonce than the question" in str(outcomes[0].error)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        (DRIVER_ID, b"{}", "no text under rim"),
        (DRIVER_ID, b'{"rim":5}', "no text under rim"),
        (DRIVER_ID, b'{"rim":"!"}', "not padded base64"),
        (DRIVER_ID, b'{"rim":"","rim":""}', "appears twice"),
        (DRIVER_ID, b"[]", "no text under rim"),
        (DRIVER_ID, b"hello", "not JSON"),
        (f"{DRIVER_ID}1", None, "made for GH100"),
        (f"NV_GPU_DRIVER_GB100_{DRIVER}", None, "made for GH100"),
        (VBIOS_ID, None, "made for GH100"),
    ],
)
def test_a_wrong_manifest_is_never_kept(
    tmp_path: Path, roots: Roots, now: datetime, name: str, body: bytes | None, why: str
) -> None:
    vendors = Vendors()
    if body is None:
        vendors.manifest(name, nvidia().driver_rim())
    else:
        vendors.answers[f"/v1/rim/{name}"] = ok(body)
    outcomes, store = run([NVIDIAManifest(name)], tmp_path, vendors, roots, now)
    assert why in str(outcomes[0].error) and outcomes[0].is_trouble and store.names() == []


def test_a_manifest_is_kept_no_longer_than_its_signer(roots: Roots, now: datetime) -> None:
    item, parts = NVIDIAManifest(DRIVER_ID), {"rim": nvidia().driver_rim()}
    assert item.examine(parts, roots=roots, now=now).until > now
    with pytest.raises(VerifyError, match="expired"):
        item.examine(parts, roots=roots, now=now + timedelta(days=31))


@pytest.mark.parametrize("name", ["", "NV_", "NV_../x", "NV_a b", "RIM", "NV_a?b", "NV_" + "x" * 121])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(FormatError, match=r"nvidia-rim\.id"):
        NVIDIAManifest(name)


def test_a_status_subject_it_does_not_have(device: Device) -> None:
    good = statuses(device.ders, "device")[0].subject()
    assert NVIDIAStatus.from_subject(good) == statuses(device.ders, "device")[0]
    changes: tuple[dict[str, Any], ...] = (
        {"use": "server"},
        {"above": -1},
        {"above": True},
        {"above": 8},
        {"chain": []},
        {"chain": [5, 5]},
        {"chain": ["AA==", "AA=="]},
        {"chain": good["chain"] * 3},  # type: ignore[operator]
        {"more": 1},
    )
    for change in changes:
        with pytest.raises(FormatError):
            NVIDIAStatus.from_subject({**good, **change})
