"""Mirrors strongroom/verify/nvidia_chain.py: chains of someone who owns a listed root, each wrong in one way."""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import VerifyError
from strongroom.verify.nvidia_chain import Chain, certificate, check_signed, verify_chain
from strongroom.verify.roots import PRODUCTION, Anchor
from tests import VECTORS
from tests.fakes.nvidia import NOW, Authority, content, issue, simulated, vectors

NAMES: Final = ("leaf", "ca", "root")
ROOT: Final = issue(simulated("root"))
CA: Final = issue(simulated("ca"), ROOT)
LEAF: Final = issue("leaf", CA, ca=False)
DAY: Final = timedelta(days=1)


def verify(*chain: Authority, names: Sequence[str] = NAMES, **changes: Any) -> Chain:
    roots = PRODUCTION.with_insecure([sha256(chain[-1].der).digest()])
    arguments: dict[str, Any] = {"anchor": Anchor.NVIDIA_DEVICE, "roots": roots, "now": NOW, "names": names}
    loaded = [certificate(link.der, "link") for link in chain]
    return verify_chain(loaded, **arguments | changes)


def test_the_unchanged_chain_is_good() -> None:
    chain = verify(LEAF, CA, ROOT)
    assert chain.simulated and chain.root_sha256 == sha256(ROOT.der).digest()
    assert chain.expired == ()


@pytest.mark.parametrize("vector", vectors("nvidia-report"), ids=lambda vector: vector["id"])
def test_real_chains_end_in_the_pinned_root_and_not_in_that_of_reference_values(
    vector: dict[str, Any],
) -> None:
    loaded = x509.load_pem_x509_certificates(content(vector, "cert_chain"))
    arguments: dict[str, Any] = {"roots": PRODUCTION, "now": NOW, "names": ["link"] * 5}
    assert not verify_chain(loaded, anchor=Anchor.NVIDIA_DEVICE, **arguments).simulated
    with pytest.raises(VerifyError, match="want the pinned nvidia_rim root"):
        verify_chain(loaded, anchor=Anchor.NVIDIA_RIM, **arguments)


def test_a_real_chain_without_its_device_is_refused() -> None:
    path = VECTORS / "nvidia/h100-pcie-545/invalid_cert_chain.pem"
    if not path.exists():
        pytest.skip("no real vectors beside this checkout")
    loaded = x509.load_pem_x509_certificates(path.read_bytes())
    with pytest.raises(
        VerifyError, match="link: issued by GH100 A01 GSP BROM, want NVIDIA GH100 Provisioner ICA 1"
    ):
        verify_chain(loaded, anchor=Anchor.NVIDIA_DEVICE, roots=PRODUCTION, now=NOW, names=["link"] * 4)


def by_sha256() -> Authority:
    return issue(simulated("ca"), ROOT, hash=SHA256())


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ((LEAF, ROOT), "nvidia_device chain: 2 certificates, want 3"),
        ((LEAF, issue(simulated("ca"), ROOT), ROOT), "leaf: signature is not ca INSECURE-SIMULATED's"),
        (
            (issue("leaf", ca := issue(simulated("ca"), issue(simulated("root"))), ca=False), ca, ROOT),
            "ca: signature is not root INSECURE-SIMULATED's",
        ),
        ((LEAF, issue(simulated("other"), ROOT), ROOT), "leaf: issued by ca INSECURE-SIMULATED, want other"),
        ((issue("leaf", by := by_sha256(), ca=False), by, ROOT), "ca: not signed with ECDSA and SHA-384"),
        ((LEAF, CA, issue(simulated("root"), CA)), "root: issued by ca|ca: signature is not"),
        ((issue("leaf", CA), CA, ROOT), "leaf: is for issuing certificates"),
        (
            (issue("leaf", ca := issue(simulated("ca"), ROOT, ca=False), ca=False), ca, ROOT),
            "ca: may not issue",
        ),
        (
            (issue("leaf", ca := issue("ca\x1b[2J", ROOT), ca=False), ca, ROOT),
            "ca: simulated issuer, name lacks the words INSECURE-SIMULATED",
        ),
        ((issue("leaf", CA, ca=False, end=NOW - DAY), CA, ROOT), "leaf: expired"),
        ((issue("leaf", CA, ca=False, start=NOW + DAY), CA, ROOT), "leaf: valid from"),
        (
            (LEAF, issue(simulated("ca"), root := issue(simulated("root"), end=NOW - DAY), key=CA.key), root),
            "root: expired",
        ),
        (
            (issue("leaf", CA, ca=False, extensions=[(x509.OCSPNoCheck(), True)]), CA, ROOT),
            "leaf: extension 1.3.6.1.5.5.7.48.1.5 is critical and not understood",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_one_wrong_link_breaks_the_chain(chain: tuple[Authority, ...], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(*chain)


def test_an_issuer_stays_within_its_depth() -> None:
    top = issue(simulated("top"), ROOT, depth=0)
    middle = issue(simulated("ca"), top)
    leaf = issue("leaf", middle, ca=False)
    with pytest.raises(VerifyError, match="top: may have 0 issuers below it, has 1"):
        verify(leaf, middle, top, ROOT, names=("leaf", "ca", "top", "root"))
    verify(issue("leaf", top, ca=False), top, ROOT)


def test_expiry_is_accepted_where_asked_for_and_never_of_the_root() -> None:
    old = issue("leaf", CA, ca=False, end=NOW - DAY)
    assert verify(old, CA, ROOT, accept_expired=True).expired == ("leaf",)
    with pytest.raises(VerifyError, match="leaf: valid from"):
        verify(issue("leaf", CA, ca=False, start=NOW + DAY), CA, ROOT, accept_expired=True)
    root = issue(simulated("root"), end=NOW - DAY)
    ca = issue(simulated("ca"), root)
    with pytest.raises(VerifyError, match="root: expired"):
        verify(issue("leaf", ca, ca=False), ca, root, accept_expired=True)


def test_a_link_remembered_as_good_is_still_looked_at_for_time_and_root() -> None:
    verify(LEAF, CA, ROOT)
    with pytest.raises(VerifyError, match="valid from"):
        verify(LEAF, CA, ROOT, now=NOW - timedelta(days=9999))
    with pytest.raises(VerifyError, match="want the pinned nvidia_device root"):
        verify(LEAF, CA, ROOT, roots=PRODUCTION)


def test_keys_of_another_curve_are_refused() -> None:
    p256 = issue("leaf", CA, ca=False, key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(VerifyError, match="link: key is not on P-384"):
        certificate(p256.der, "link")
    for junk in (b"", b"junk", LEAF.der + b"\0"):
        with pytest.raises(VerifyError, match="link: not a certificate we can read"):
            certificate(junk, "link")


@pytest.mark.parametrize("bit", [0, 383, 384, 767])
def test_a_changed_signature_is_refused(bit: int) -> None:
    signature = int.from_bytes(LEAF.sign(b"text"), "big")
    check_signed(b"text", signature.to_bytes(96, "big"), LEAF.certificate, "text")
    with pytest.raises(VerifyError, match="text: signature is not its certificate's"):
        check_signed(b"text", (signature ^ 1 << bit).to_bytes(96, "big"), LEAF.certificate, "text")


@pytest.mark.parametrize(
    "signature", [bytes(96), bytes(48) + b"\1" * 48, b"\1" * 48 + bytes(48), b"\xff" * 96]
)
def test_signatures_outside_the_group_are_refused(signature: bytes) -> None:
    with pytest.raises(VerifyError, match="signature is not"):
        check_signed(b"text", signature, LEAF.certificate, "text")


def test_der_of_a_chain_is_what_is_pinned() -> None:
    assert LEAF.certificate.public_bytes(Encoding.DER) == LEAF.der
