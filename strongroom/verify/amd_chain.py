"""The path from an AMD leaf certificate to a pinned root: signatures, validity, revocation.

Every signature is checked as RSASSA-PSS with SHA-384, MGF1-SHA-384 and a 48-byte salt, whatever a certificate
says of itself: an algorithm is never taken from the evidence.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.errors import VerifyError
from strongroom.verify.certificates import check_whole_bytes, strictly
from strongroom.verify.roots import SIMULATED_LABEL, Roots
from strongroom.wire.line import sentence

LeafKind = Literal["vcek", "vlek"]

_REMEMBERED: Final = 64  # links that held
_PSS: Final = PSS(mgf=MGF1(SHA384()), salt_length=48)


@dataclass(frozen=True, slots=True)
class Root:
    """How a chain ended: at which pin, and whether that pin is simulated silicon's."""

    sha256: bytes
    simulated: bool


@dataclass(frozen=True, slots=True)
class Revocations:
    """A verified revocation list."""

    serials: frozenset[int]
    this_update: datetime
    next_update: datetime


def verify_chain(
    leaf: x509.Certificate,
    ask: x509.Certificate,
    ark: x509.Certificate,
    *,
    kind: LeafKind,
    product: str,
    roots: Roots,
    now: datetime,
) -> Root:
    """The root the leaf chains to, or VerifyError naming the first link that does not hold."""
    root = verify_issuers(ask, ark, kind=kind, product=product, roots=roots, now=now)
    _check_validity(leaf.not_valid_before_utc, leaf.not_valid_after_utc, kind, now)
    _check_issued(leaf, ask, kind)
    if not root.simulated and ask.serial_number in roots.amd[product].revoked_serials:
        raise VerifyError(f"ask: serial {ask.serial_number:#x} is revoked")
    return root


def verify_issuers(
    ask: x509.Certificate,
    ark: x509.Certificate,
    *,
    kind: LeafKind,
    product: str,
    roots: Roots,
    now: datetime,
) -> Root:
    """The pinned root of the certificates above a leaf. Whether the ASK is revoked is not looked at."""
    root = _pinned(ark, product, roots)
    _check_names(ask, ark, kind, product, root)
    for certificate, what in ((ark, "ark"), (ask, "ask")):
        _check_validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc, what, now)
    _check_issued(ark, ark, "ark")
    _check_issued(ask, ark, "ask")
    _check_issuer_role(ask)
    return root


def check_crl(crl: bytes, ask: x509.Certificate, ark: x509.Certificate, now: datetime) -> None:
    """Refuse an ASK on the ARK's revocation list, and a list that is foreign, forged or out of date.

    Leaves cannot be looked up: every VCEK has the serial number 0.
    """
    if ask.serial_number in verified_crl(crl, ark, now).serials:
        raise VerifyError(f"ask: serial {ask.serial_number:#x} is revoked")


def verified_crl(crl: bytes, ark: x509.Certificate, now: datetime) -> Revocations:
    """What the ARK's own revocation list says, whomever it names."""
    with strictly("crl", "revocation list"):
        revocations = x509.load_der_x509_crl(crl)
        issuer, start, end = revocations.issuer, revocations.last_update_utc, revocations.next_update_utc
        serials = frozenset(revoked.serial_number for revoked in revocations)
        check_whole_bytes(crl, revocations.signature, "crl")
    if issuer != ark.subject:
        raise VerifyError(f"crl: issuer is {_shown(issuer)}, want {_shown(ark.subject)}")
    _check_signature(revocations.signature, revocations.tbs_certlist_bytes, ark, "crl")
    if end is None:
        raise VerifyError("crl: has no next update, want one")
    _check_validity(start, end, "crl", now)
    return Revocations(serials, start, end)


def is_out_of_date(crl: bytes, now: datetime) -> bool:
    """Whether a list says itself that there is a newer one. It is not verified, and False when it cannot be read."""
    try:
        end = x509.load_der_x509_crl(crl).next_update_utc
    except ValueError:
        return False
    return end is not None and end < now


def _pinned(ark: x509.Certificate, product: str, roots: Roots) -> Root:
    digest = sha256(ark.public_bytes(Encoding.DER)).digest()
    pin = roots.amd.get(product)
    if pin is not None and digest == pin.ark_sha256:
        return Root(digest, simulated=False)
    if digest in roots.insecure:
        return Root(digest, simulated=True)
    raise VerifyError(f"ark: sha256 is {digest.hex()}, want the pinned {product} root")


def _check_names(
    ask: x509.Certificate, ark: x509.Certificate, kind: LeafKind, product: str, root: Root
) -> None:
    found, shown = _common_name(ask.subject), _shown(ask.subject)
    if root.simulated:
        if not all(SIMULATED_LABEL in _common_name(c.subject) for c in (ask, ark)):
            raise VerifyError(f"simulated issuers: name lacks the words {SIMULATED_LABEL}")
        if ("VLEK" in found) != (kind == "vlek"):
            raise VerifyError(f"ask: name is {shown}, which does not issue a {kind}")
        return
    # An ASVK must not vouch for a VCEK, nor an ASK for a VLEK.
    want = f"SEV-VLEK-{product}" if kind == "vlek" else f"SEV-{product}"
    if found != want:
        raise VerifyError(f"ask: name is {shown}, want {want}")


def _check_validity(start: datetime, end: datetime, what: str, now: datetime) -> None:
    if now < start:
        raise VerifyError(f"{what}: valid from {start.isoformat()}, now is {now.isoformat()}")
    if now > end:
        raise VerifyError(f"{what}: expired {end.isoformat()}, now is {now.isoformat()}")


def _check_issuer_role(certificate: x509.Certificate) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise VerifyError("ask: lacks basic constraints or key usage, want an issuer") from error
    if not constraints.ca or not usage.key_cert_sign:
        raise VerifyError("ask: may not issue certificates")


@lru_cache(maxsize=_REMEMBERED)  # depends on the bytes of both alone; a failure is not remembered
def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, what: str) -> None:
    by = _shown(issuer.subject)
    if certificate.issuer != issuer.subject:
        raise VerifyError(f"{what}: issued by {_shown(certificate.issuer)}, want {by}")
    _check_signature(certificate.signature, certificate.tbs_certificate_bytes, issuer, what)
    try:  # once more, for what only the library sees: the algorithm named outside the signature
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise VerifyError(f"{what}: its two statements of the signature algorithm differ") from error


def _check_signature(signature: bytes, signed: bytes, issuer: x509.Certificate, what: str) -> None:
    key, by = issuer.public_key(), _shown(issuer.subject)
    if not isinstance(key, RSAPublicKey):
        raise VerifyError(f"{by}: key is not RSA, want RSA")
    try:
        key.verify(signature, signed, _PSS, SHA384())
    except InvalidSignature as error:
        raise VerifyError(f"{what}: signature is not {by}'s (RSASSA-PSS, SHA-384)") from error


def _common_name(name: x509.Name) -> str:
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(values[0]) if len(values) == 1 else "without one common name"


def _shown(name: x509.Name) -> str:
    # Shown before any signature is checked: whoever wrote it may have meant it for a terminal.
    return sentence(_common_name(name), most=64)
