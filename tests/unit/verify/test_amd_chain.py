"""Mirrors strongroom/verify/amd_chain.py: chains a forger who owns a listed root could build, each wrong in one way."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.errors import VerifyError
from strongroom.verify.amd_chain import Root, check_crl, verified_crl, verify_chain
from strongroom.verify.roots import PRODUCTION, Roots

NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
PSS: Final = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)
ARK: Final = "INSECURE-SIMULATED-ARK"
ASK: Final = "INSECURE-SIMULATED-ASK"


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One certificate to issue; the defaults make a good ASK."""

    subject: str = ASK
    issuer: str = ARK
    key: str = "ask"
    signer: str = "ark"
    ca: bool = True
    signs: bool = True
    constrained: bool = True
    start: timedelta = timedelta(days=-1)
    end: timedelta = timedelta(days=1)
    padded: padding.PSS | padding.PKCS1v15 = field(default_factory=lambda: PSS)
    hash: SHA256 | SHA384 = field(default_factory=SHA384)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def issue(spec: Spec) -> x509.Certificate:
    key: Any = rsa_key(spec.key) if spec.key != "ec" else ec.generate_private_key(ec.SECP384R1())
    builder = x509.CertificateBuilder(
        subject_name=name(spec.subject),
        issuer_name=name(spec.issuer),
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=NOW + spec.start,
        not_valid_after=NOW + spec.end,
    )
    if spec.constrained:
        builder = builder.add_extension(x509.BasicConstraints(ca=spec.ca, path_length=None), critical=True)
        builder = builder.add_extension(usage(spec.signs), critical=True)
    signer = rsa_key(spec.signer)
    return builder.sign(signer, spec.hash, rsa_padding=spec.padded)


def usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


GOOD_ARK: Final = Spec(subject=ARK, key="ark")
GOOD_ASK: Final = Spec()
GOOD_LEAF: Final = Spec(subject="leaf", issuer=ASK, key="leaf", signer="ask", ca=False, signs=False)


def verify(*, ark: Spec = GOOD_ARK, ask: Spec = GOOD_ASK, leaf: Spec = GOOD_LEAF, kind: Any = "vcek") -> Root:
    root = issue(ark)
    digest = sha256(root.public_bytes(Encoding.DER)).digest()
    roots = PRODUCTION.with_insecure([digest])
    return verify_chain(issue(leaf), issue(ask), root, kind=kind, product="Genoa", roots=roots, now=NOW)


def test_the_unchanged_chain_is_good() -> None:
    assert verify().simulated


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ({"ask": replace(GOOD_ASK, signer="other")}, f"ask: signature is not {ARK}'s"),
        ({"ask": replace(GOOD_ASK, issuer="other")}, f"ask: issued by other, want {ARK}"),
        ({"ask": replace(GOOD_ASK, issuer="o\x1b[2J\nther")}, f"ask: issued by o \\[2J ther, want {ARK}"),
        ({"ask": replace(GOOD_ASK, padded=padding.PKCS1v15())}, f"ask: signature is not {ARK}'s"),
        ({"ask": replace(GOOD_ASK, hash=SHA256())}, f"ask: signature is not {ARK}'s"),
        (
            {"ask": replace(GOOD_ASK, padded=padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=32))},
            f"ask: signature is not {ARK}'s",
        ),
        (
            {"ask": replace(GOOD_ASK, padded=padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=48))},
            f"ask: signature is not {ARK}'s",
        ),
        ({"ask": replace(GOOD_ASK, ca=False, signs=False)}, "ask: may not issue certificates"),
        ({"ask": replace(GOOD_ASK, signs=False)}, "ask: may not issue certificates"),
        ({"ask": replace(GOOD_ASK, constrained=False)}, "ask: lacks basic constraints or key usage"),
        ({"ask": replace(GOOD_ASK, end=timedelta(hours=-1))}, "ask: expired"),
        ({"ask": replace(GOOD_ASK, start=timedelta(hours=1))}, "ask: valid from"),
        ({"ask": replace(GOOD_ASK, key="ec")}, f"{ASK}: key is not RSA"),
        ({"ark": replace(GOOD_ARK, end=timedelta(hours=-1))}, "ark: expired"),
        ({"ark": replace(GOOD_ARK, issuer="other")}, f"ark: issued by other, want {ARK}"),
        ({"ark": replace(GOOD_ARK, signer="other")}, f"ark: signature is not {ARK}'s"),
        ({"leaf": replace(GOOD_LEAF, signer="ark")}, f"vcek: signature is not {ASK}'s"),
        ({"leaf": replace(GOOD_LEAF, issuer=ARK)}, f"vcek: issued by {ARK}, want {ASK}"),
        ({"leaf": replace(GOOD_LEAF, end=timedelta(hours=-1))}, "vcek: expired"),
        ({"kind": "vlek"}, f"ask: name is {ASK}, which does not issue a vlek"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_one_wrong_link_breaks_the_chain(chain: dict[str, Any], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(**chain)


@pytest.mark.guarantee("G18")
@pytest.mark.parametrize("role", ["ark", "ask"])
def test_a_simulated_issuer_must_say_so(role: str) -> None:
    specs = {"ark": GOOD_ARK, "ask": GOOD_ASK, "leaf": GOOD_LEAF}
    plain = replace(specs[role], subject="SEV-Genoa")
    with pytest.raises(VerifyError, match="name lacks the words INSECURE-SIMULATED"):
        verify(**specs | {role: plain})


def crl(*, issuer: str = ARK, signer: str = "ark", serials: tuple[int, ...] = ()) -> bytes:
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=name(issuer),
        last_update=NOW - timedelta(days=1),
        next_update=NOW + timedelta(days=1),
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder(serial, NOW - timedelta(days=1)).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(rsa_key(signer), SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


def test_a_list_that_does_not_name_the_ask_lets_it_pass() -> None:
    check_crl(crl(serials=(8,)), issue(GOOD_ASK), issue(GOOD_ARK), NOW)


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ({"serials": (7,)}, "ask: serial 0x7 is revoked"),
        ({"issuer": ASK}, f"crl: issuer is {ASK}, want {ARK}"),
        ({"signer": "ask"}, f"crl: signature is not {ARK}'s"),
    ],
    ids=["revoked", "issuer", "signer"],
)
def test_a_revoked_ask_or_a_foreign_list_is_refused(listed: dict[str, Any], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        check_crl(crl(**listed), issue(GOOD_ASK), issue(GOOD_ARK), NOW)


def test_a_list_is_verified_whomever_it_names() -> None:
    ask = issue(GOOD_ASK)
    listed = verified_crl(crl(serials=(8, ask.serial_number)), issue(GOOD_ARK), NOW)
    assert listed.serials == {8, ask.serial_number} and listed.this_update < NOW < listed.next_update


def test_junk_is_no_list() -> None:
    with pytest.raises(VerifyError, match="crl: not a revocation list we can read"):
        check_crl(b"junk", issue(GOOD_ASK), issue(GOOD_ARK), NOW)


def test_without_any_root_nothing_is_genuine() -> None:
    chain = issue(GOOD_LEAF), issue(GOOD_ASK), issue(GOOD_ARK)
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        verify_chain(*chain, kind="vcek", product="Genoa", roots=Roots(amd={}), now=NOW)
