"""Mirrors strongroom/verify/tdx_chain.py: one path that holds, and every way to spoil it."""

from dataclasses import replace
from hashlib import sha256
from itertools import permutations
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import FormatError, VerifyError
from strongroom.verify.roots import PRODUCTION, Roots
from strongroom.verify.tdx_chain import (
    Clock,
    check_revocation,
    check_signature,
    pck_path,
    signed_object,
    signer_path,
)
from tests.fakes.intel import NOW, Certified, Platform, key, sign, simulated

MACHINE = Platform()
ROOT, CA, SIGNER, PCK = MACHINE.root, MACHINE.ca, MACHINE.signer, MACHINE.pck
OTHER = key("other")


def path(*chain: Certified, roots: Roots = MACHINE.roots, now: Any = NOW) -> None:
    pck_path(b"".join(one.pem for one in chain), roots=roots, clock=Clock(now))


def test_names_and_not_positions_say_which_is_which() -> None:
    for chain in permutations((PCK, CA, ROOT)):
        path(*chain)
    path(
        replace(PCK, issuer=simulated("Intel SGX PCK Processor CA")),
        replace(CA, name=simulated("Intel SGX PCK Processor CA")),
        ROOT,
    )


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ((PCK, CA), "lacks Intel SGX Root CA"),
        ((PCK, ROOT), "names are .*, want Intel SGX Root CA, Intel SGX PCK Processor CA"),
        ((CA, ROOT), "names are"),
        ((PCK, CA, ROOT, ROOT), "more than 3 certificates"),
        ((PCK, CA, CA), "PCK Platform CA appears twice"),
        ((PCK, SIGNER, ROOT), "names are"),
        ((replace(PCK, name="x"), CA, ROOT), "name is x"),
        ((PCK, replace(CA, name="Intel SGX PCK Platform CA"), ROOT), "INSECURE-SIMULATED"),
        ((replace(PCK, name=simulated("\x1b[31mx")), CA, ROOT), "names are"),
        ((replace(PCK, issuer_key=OTHER), CA, ROOT), "PCK Certificate .*: signature is not"),
        ((PCK, replace(CA, issuer_key=OTHER), ROOT), "PCK Platform CA .*: signature is not"),
        ((replace(PCK, issuer=ROOT.name, issuer_key=ROOT.key), CA, ROOT), "issued by Intel SGX Root CA"),
        ((replace(PCK, digest=SHA384()), CA, ROOT), "algorithm is not ECDSA with SHA-256"),
        ((replace(PCK, ca=True), CA, ROOT), "may issue certificates"),
        ((PCK, replace(CA, ca=False), ROOT), "may not issue certificates"),
        ((PCK, replace(CA, has_usage=False), ROOT), "lacks basic constraints"),
        ((replace(PCK, critical=True), CA, ROOT), "critical extension 1.2.840.113741.1.13.1 is not known"),
    ],
)
def test_every_other_chain_is_refused(chain: tuple[Certified, ...], why: str) -> None:
    with pytest.raises((VerifyError, FormatError), match=why):
        path(*chain)


def test_a_root_is_a_root_by_its_pin() -> None:
    imposter = replace(ROOT, serial=7)
    with pytest.raises(VerifyError, match="want the pinned intel root"):
        path(PCK, CA, imposter)
    with pytest.raises(VerifyError, match="want the pinned intel root"):
        path(PCK, CA, ROOT, roots=PRODUCTION)


def test_a_genuine_pin_does_not_cover_simulated_names() -> None:
    genuine = replace(PRODUCTION, intel=frozenset({sha256(ROOT.der).digest()}))
    with pytest.raises(VerifyError, match="INSECURE-SIMULATED"):
        path(PCK, CA, ROOT, roots=genuine)


def test_keys_are_on_p256() -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    p384 = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(VerifyError, match=r"algorithm is not ECDSA|key is not on P-256"):
        path(replace(PCK, issuer_key=rsa_key), replace(CA, key=rsa_key), ROOT)
    with pytest.raises(VerifyError, match=r"PCK Platform CA .*: key is not on P-256"):
        path(replace(PCK, issuer_key=p384), replace(CA, key=p384), ROOT)
    found = pck_path(replace(PCK, key=p384).pem + CA.pem + ROOT.pem, roots=MACHINE.roots, clock=Clock(NOW))
    with pytest.raises(VerifyError, match=r"PCK Certificate .*: key is not on P-256"):
        _ = found.key


def test_bytes_that_are_no_certificate_are_refused() -> None:
    junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(VerifyError, match="pck chain: not a certificate we can read"):
        pck_path(junk + CA.pem + ROOT.pem, roots=MACHINE.roots, clock=Clock(NOW))


def test_a_certificate_has_one_encoding() -> None:
    """A spare bit declared in the signature's bit string is not signed, and changes nothing the library sees."""
    tries = (replace(CA, serial=serial) for serial in range(20, 80))
    ca = next(ca for ca in tries if not ca.der[-1] & 1)  # the spare bit has to be zero
    der = bytearray(ca.der)
    der[-len(ca.certificate.signature) - 1] = 1
    spoiled = x509.load_der_x509_certificate(bytes(der))
    assert spoiled.signature == ca.certificate.signature
    pem = PCK.pem + spoiled.public_bytes(Encoding.PEM) + ROOT.pem
    with pytest.raises(VerifyError, match="pck chain: signature has unused bits, want whole bytes"):
        pck_path(pem, roots=MACHINE.roots, clock=Clock(NOW))


def test_a_signers_chain_is_a_signer_and_the_root() -> None:
    clock = Clock(NOW)
    signer = signer_path(ROOT.pem + SIGNER.pem, roots=MACHINE.roots, clock=clock)
    assert signer.leaf == SIGNER.certificate
    assert (clock.valid_from, clock.valid_until) == (SIGNER.start, SIGNER.end)
    for chain in (PCK.pem + CA.pem + ROOT.pem, SIGNER.pem + CA.pem + ROOT.pem, ROOT.pem):
        with pytest.raises(VerifyError, match="tcb signing chain: names are"):
            signer_path(chain, roots=MACHINE.roots, clock=clock)
    document = MACHINE.signed("tcbInfo", b'{"a":1}')
    assert signed_object(document, "tcbInfo", signer) == b'{"a":1}'
    with pytest.raises(VerifyError, match="signature is not the tcb signer's"):
        signed_object(document.replace(b"1", b"2", 1), "tcbInfo", signer)


def _crl(platform: Platform, issuer: Certified = ROOT, **signed_by: Any) -> bytes:
    return platform.crl(replace(issuer, **signed_by))


@pytest.mark.parametrize(
    ("crl", "why"),
    [
        (_crl(MACHINE, CA), "issuer is Intel SGX PCK Platform CA"),
        (_crl(MACHINE, key=OTHER), "signature is not its issuer's"),
        (_crl(Platform(crl_start=NOW.replace(year=2027), crl_end=NOW.replace(year=2028))), "valid from 2027"),
        (_crl(Platform(crl_start=NOW.replace(year=2024), crl_end=NOW.replace(year=2025))), "expired 2025"),
        (_crl(Platform(crl_critical=True)), "has a critical extension, want a complete list"),
        (b"junk", "not a revocation list we can read"),
        (_crl(MACHINE) + b"\0", "not a revocation list we can read"),
        (_crl(Platform(revoked=frozenset({2}))), "serial 0x2 is revoked"),
    ],
)
def test_a_list_is_its_issuers_current_and_complete(crl: bytes, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        check_revocation(crl, ROOT.certificate, (CA.certificate,), Clock(NOW))


def test_a_clean_list_narrows_the_window() -> None:
    clock = Clock(NOW)
    check_revocation(_crl(MACHINE), ROOT.certificate, (CA.certificate, SIGNER.certificate), clock)
    assert (clock.valid_from, clock.valid_until) == (MACHINE.crl_start, MACHINE.crl_end)


def test_a_signature_is_64_bytes_by_this_key_over_this() -> None:
    signature = sign(OTHER, b"data")
    check_signature(signature, b"data", OTHER.public_key(), "thing: not signed")
    for bad, signed, by in (
        (signature, b"date", OTHER),
        (signature, b"data", key("root")),
        (bytes(64), b"data", OTHER),
        (signature[32:] + signature[:32], b"data", OTHER),
    ):
        with pytest.raises(VerifyError, match=r"thing: not signed \(ECDSA P-256, SHA-256\)"):
            check_signature(bad, signed, by.public_key(), "thing: not signed")
