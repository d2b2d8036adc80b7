"""The path from an AMD leaf certificate to a pinned root: signatures, validity, revocation.

Every signature is checked as RSASSA-PSS with SHA-384, MGF1-SHA-384 and a 48-byte salt, whatever a certificate
says of itself: an algorithm is never taken from the evidence.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from strongroom.errors import VerifyError
from strongroom.verify.roots import SIMULATED_LABEL, Roots
from strongroom.wire.line import sentence

LeafKind = Literal["vcek", "vlek"]

_UNREADABLE: Final = (  # what the library raises for bytes it cannot make sense of
    ValueError,
    TypeError,
    UserWarning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_PSS: Final = PSS(mgf=MGF1(SHA384()), salt_length=48)


@dataclass(frozen=True, slots=True)
class Root:
    """How a chain ended: at which pin, and whether that pin is simulated silicon's."""

    sha256: bytes
    simulated: bool


def load(der: bytes, what: str) -> x509.Certificate:
    """The certificate, with every part we read later already parsed once."""
    with _strictly(what, "certificate"):
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate


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
    root = _pinned(ark, product, roots)
    _check_names(ask, ark, kind, product, root)
    for certificate, what in ((ark, "ark"), (ask, "ask"), (leaf, kind)):
        _check_validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc, what, now)
    _check_issued(ark, ark, "ark")
    _check_issued(ask, ark, "ask")
    _check_issuer_role(ask)
    _check_issued(leaf, ask, kind)
    if not root.simulated and ask.serial_number in roots.amd[product].revoked_serials:
        raise VerifyError(f"ask: serial {ask.serial_number:#x} is revoked")
    return root


def check_crl(crl: bytes, ask: x509.Certificate, ark: x509.Certificate, now: datetime) -> None:
    """Refuse an ASK on the ARK's revocation list, and a list that is foreign, forged or out of date.

    Leaves cannot be looked up: every VCEK has the serial number 0.
    """
    with _strictly("crl", "revocation list"):
        revocations = x509.load_der_x509_crl(crl)
        issuer, start, end = revocations.issuer, revocations.last_update_utc, revocations.next_update_utc
        is_listed = revocations.get_revoked_certificate_by_serial_number(ask.serial_number) is not None
    if issuer != ark.subject:
        raise VerifyError(f"crl: issuer is {_shown(issuer)}, want {_shown(ark.subject)}")
    _check_signature(revocations.signature, revocations.tbs_certlist_bytes, ark, "crl")
    if end is None:
        raise VerifyError("crl: has no next update, want one")
    _check_validity(start, end, "crl", now)
    if is_listed:
        raise VerifyError(f"ask: serial {ask.serial_number:#x} is revoked")


@contextmanager
def _strictly(what: str, thing: str) -> Iterator[None]:
    """Everything the library stumbles over inside is a VerifyError, also what it would only warn about."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            # AMD gives every VCEK the serial number 0, which is no reason to refuse it.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            yield
    except _UNREADABLE as error:
        raise VerifyError(f"{what}: not a {thing} we can read") from error


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
