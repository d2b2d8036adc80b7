"""Mirrors strongroom/verify/tpm_chain.py."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from strongroom.errors import VerifyError
from strongroom.evidence.hcl import HCLReport, RuntimeData
from strongroom.evidence.tpm import TPMPublic
from strongroom.verify.azure import attestation_key
from strongroom.verify.roots import PRODUCTION, Anchor
from strongroom.verify.tpm import key_sha256, public_key
from strongroom.verify.tpm_chain import CertifiedKey, complete_chain, split_der, verify_ak_chain
from tests import VECTORS
from tests.fakes.tpm import AIK, ISSUER_NAME, NOW, ROOT_NAME, ak_chain, ec_key, rsa_key

CHAIN: Final = ak_chain()
ROOT_SHA256: Final = bytes.fromhex("9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf")
needs_vectors: Final = pytest.mark.skipif(not VECTORS.exists(), reason="no real vectors beside this checkout")


def verify(
    chain: list[bytes] | None = None,
    *,
    anchor: Anchor = Anchor.AZURE_VTPM,
    now: datetime = NOW,
    root: bytes | None = None,
) -> CertifiedKey:
    chain = CHAIN if chain is None else chain
    digest = hashes.Hash(hashes.SHA256())
    digest.update(chain[-1] if root is None else root)
    roots = PRODUCTION.with_insecure([digest.finalize()])
    return verify_ak_chain(chain, anchor=anchor, roots=roots, now=now)


def azure_chain() -> list[bytes]:
    folder = VECTORS / "azure"
    files = ["tdx-ak-chain/ak_cert", "tdx-ak-chain/ak_intermediate_0", "tdx-ak-chain/ak_intermediate_1"]
    files.append("ca/azure_tpm_root_2023")
    return [
        x509.load_pem_x509_certificate((folder / f"{file}.pem").read_bytes()).public_bytes(Encoding.DER)
        for file in files
    ]


def google_chain() -> list[bytes]:
    files = ["gce-cos85-nonce9009/ak_cert.der", "ca/gce_ek_intermediate_2.crt", "ca/gce_ek_root_1.cer"]
    return [(VECTORS / "tpm" / file).read_bytes() for file in files]


@needs_vectors
def test_a_real_azure_key_chains_to_the_pinned_root() -> None:
    certified = verify_ak_chain(azure_chain(), anchor=Anchor.AZURE_VTPM, roots=PRODUCTION, now=NOW)
    report = HCLReport.parse((VECTORS / "azure/tdx-ak-chain/hcl_report.bin").read_bytes())
    named = attestation_key(RuntimeData.parse(report.variable_data))
    assert certified.key_sha256 == key_sha256(named)
    assert not certified.simulated
    assert {certified.root_sha256} == PRODUCTION.azure_vtpm


@needs_vectors
@pytest.mark.parametrize(
    ("now", "why"),
    [
        (datetime(2026, 6, 7, tzinfo=UTC), "ak certificate: valid from 2026-06-08"),
        (datetime(2027, 6, 8, tzinfo=UTC), "ak certificate: expired 2027-06-07"),
    ],
)
def test_a_real_azure_key_is_good_for_a_year(now: datetime, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify_ak_chain(azure_chain(), anchor=Anchor.AZURE_VTPM, roots=PRODUCTION, now=now)


@needs_vectors
def test_a_real_google_key_chains_to_google_s_older_root() -> None:
    chain = google_chain()
    with pytest.raises(VerifyError, match=f"sha256 is {ROOT_SHA256.hex()}, want the pinned gcp_vtpm root"):
        verify_ak_chain(chain, anchor=Anchor.GCP_VTPM, roots=PRODUCTION, now=NOW)
    older = replace(PRODUCTION, gcp_vtpm=frozenset({ROOT_SHA256}))
    certified = verify_ak_chain(chain, anchor=Anchor.GCP_VTPM, roots=older, now=NOW)
    public = TPMPublic.parse((VECTORS / "tpm/gce-cos85-nonce9009/ak_pub.tpmt").read_bytes())
    assert certified.key_sha256 == key_sha256(public_key(public))
    with pytest.raises(VerifyError, match="want the pinned azure_vtpm root"):
        verify_ak_chain(chain, anchor=Anchor.AZURE_VTPM, roots=older, now=NOW)


@needs_vectors
def test_google_s_own_pin_is_a_root_of_its_intermediate() -> None:
    folder = VECTORS / "tpm/ca"
    chain = [
        (folder / f"{name}.crt").read_bytes() for name in ("gcp_ek_ak_intermediate_v3", "gcp_ek_ak_root")
    ]
    with pytest.raises(VerifyError, match="ak certificate: is not for signatures alone"):
        verify_ak_chain(chain, anchor=Anchor.GCP_VTPM, roots=PRODUCTION, now=NOW)


@pytest.mark.guarantee("G18")
def test_a_simulated_root_is_believed_only_where_it_is_named() -> None:
    certified = verify()
    assert certified.simulated
    assert certified.key_sha256 == key_sha256(rsa_key("ak").public_key())
    assert certified.not_checked == ("revocation of the ak: no revocation list given",)
    with pytest.raises(VerifyError, match="want the pinned azure_vtpm root"):
        verify_ak_chain(CHAIN, anchor=Anchor.AZURE_VTPM, roots=PRODUCTION, now=NOW)
    plain = ak_chain(root={"subject": "vTPM root", "issuer": "vTPM root"}, issuer={"issuer": "vTPM root"})
    with pytest.raises(VerifyError, match="lacks the words INSECURE-SIMULATED"):
        verify(plain)


def test_anchors_of_other_things_vouch_for_no_tpm() -> None:
    with pytest.raises(VerifyError, match="anchor is intel, want that of a vtpm"):
        verify(anchor=Anchor.INTEL)


@pytest.mark.parametrize("chain", [[], CHAIN[:1], CHAIN[-1:], [CHAIN[0], *[CHAIN[1]] * 7, CHAIN[2]]])
def test_chains_of_other_lengths_are_refused(chain: list[bytes]) -> None:
    with pytest.raises(VerifyError, match=r"ak certificate: chain of \d, want 2\.\.8"):
        verify(chain, root=b"")


def test_a_key_the_root_signed_itself_is_certified_too() -> None:
    direct = ak_chain(leaf={"issuer": ROOT_NAME, "issuer_key": rsa_key("vtpm root")})
    assert verify([direct[0], direct[2]]).simulated


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"leaf": {"purpose": None}}, "has no extended key usage"),
        ({"leaf": {"purpose": "1.3.6.1.5.5.7.3.1"}}, "not for 2.23.133.8.3, a tpm's attestation key"),
        ({"leaf": {"purpose": "2.23.133.8.1"}}, "not for 2.23.133.8.3"),
        ({"leaf": {"is_ca": True}}, "ak certificate: is not for signatures alone"),
        ({"leaf": {"signs_certificates": True}}, "ak certificate: is not for signatures alone"),
        ({"issuer": {"is_ca": False, "path_length": None}}, "ak issuer 1: may not issue certificates"),
        ({"issuer": {"signs_certificates": False}}, "ak issuer 1: may not issue certificates"),
        ({"leaf": {"issuer": "another"}}, f"issued by another, want {ISSUER_NAME}"),
        ({"leaf": {"issuer_key": rsa_key("another")}}, f"ak certificate: signature is not {ISSUER_NAME}'s"),
        ({"issuer": {"issuer_key": rsa_key("another")}}, f"ak issuer 1: signature is not {ROOT_NAME}'s"),
        ({"root": {"issuer_key": rsa_key("another")}}, f"ak root: signature is not {ROOT_NAME}'s"),
        ({"leaf": {"algorithm": hashes.SHA3_256()}}, "signature is not over SHA-256"),
        ({"leaf": {"key": rsa_key("small", 1024)}}, "key is not RSA of 2048"),
        ({"leaf": {"key": ec_key("ak")}}, "key is not RSA of 2048"),
        (
            {"leaf": {"more": [x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"\5\0")]}},
            "ak certificate: critical extension 1.2.3 is not understood",
        ),
        ({"leaf": {"life": timedelta(days=1)}}, "ak certificate: expired"),
        ({"issuer": {"start": NOW + timedelta(days=1)}}, "ak issuer 1: valid from"),
        ({"root": {"life": timedelta(days=1)}}, "ak root: expired"),
    ],
    ids=str,
)
def test_a_broken_link_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(ak_chain(**changes))


def test_google_s_authority_calls_every_key_an_endorsement_key() -> None:
    chain = ak_chain(leaf={"purpose": "2.23.133.8.1"})
    assert verify(chain, anchor=Anchor.GCP_VTPM).simulated


def test_a_path_length_is_kept() -> None:
    # The issuer may have keys below it, and no further issuer.
    below = {"subject": "below", "key": rsa_key("below"), "is_ca": True}
    sub = ak_chain(leaf=below | {"purpose": AIK})[0]
    leaf = ak_chain(leaf={"issuer": "below", "issuer_key": rsa_key("below")})[0]
    with pytest.raises(VerifyError, match="ak issuer 2: may have 0 issuers below it, has 1"):
        verify([leaf, sub, *CHAIN[1:]])


@pytest.mark.parametrize("n", range(3))
def test_a_changed_byte_is_refused(n: int) -> None:
    for at in range(0, len(CHAIN[n]), 5):
        chain = list(CHAIN)
        changed = bytearray(chain[n])
        changed[at] ^= 1
        chain[n] = bytes(changed)
        with pytest.raises(VerifyError):
            verify(chain, root=CHAIN[-1])


def test_long_certificates_are_refused_before_they_are_read() -> None:
    with pytest.raises(VerifyError, match="16385 bytes, want at most 16384"):
        verify([bytes(16385), *CHAIN[1:]])


def test_certificates_one_after_another_with_the_zeros_of_an_nv_index() -> None:
    joined = b"".join(CHAIN)
    assert split_der(joined) == split_der(joined.ljust(4096, b"\0")) == tuple(CHAIN)
    assert split_der(b"") == split_der(bytes(4096)) == ()
    for bad in (
        joined[:-1],
        joined + b"\1",
        b"\0" + joined,
        b"\x30\x82\xff\xff" + bytes(10) + b"\1",
        joined * 3,
    ):
        with pytest.raises(VerifyError, match="no whole certificate after"):
            split_der(bad)


def test_a_chain_is_completed_by_names_whatever_order_they_come_in() -> None:
    leaf, issuer, root = CHAIN
    key = rsa_key("ak").public_key()
    for given, others in (([leaf], [root, issuer]), ([leaf, root], [issuer]), (CHAIN, []), (CHAIN, [root])):
        assert complete_chain(given, others, key=key) == tuple(CHAIN)


@pytest.mark.parametrize(
    ("given", "others", "why"),
    [
        ([], CHAIN, "none given, want one"),
        (CHAIN[:1], [], f"no certificate of {ISSUER_NAME}, which issued the last of 1"),
        (CHAIN[:2], [], f"no certificate of {ROOT_NAME}, which issued the last of 2"),
        (CHAIN[1:], [], "is for another key"),
        ([b"0"], [], "not a certificate we can read"),
    ],
)
def test_a_chain_with_a_link_missing_is_none(given: list[bytes], others: list[bytes], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        complete_chain(given, others, key=rsa_key("ak").public_key())


def test_issuers_that_name_each_other_lead_nowhere() -> None:
    one = ak_chain(root={"issuer": ISSUER_NAME, "issuer_key": rsa_key("vtpm issuer")})
    with pytest.raises(VerifyError, match="which issued the last of 8"):
        complete_chain(one, [], key=rsa_key("ak").public_key())
