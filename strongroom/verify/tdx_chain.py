"""Paths to Intel's root: the certificates in a quote, the signers of collateral, and the revocation lists.

Everything is ECDSA on P-256 with SHA-256, whatever a certificate says of itself. Which certificate is which follows
from their names, never from the order they came in, and the pin decides what the root is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from strongroom.errors import VerifyError
from strongroom.verify.certificates import check_whole_bytes, strictly
from strongroom.verify.intel_json import SignedJSON
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import SIMULATED_LABEL, Anchor, Roots
from strongroom.wire.line import sentence
from strongroom.wire.pem import certificates

ROOT: Final = "Intel SGX Root CA"
PLATFORM_CA: Final = "Intel SGX PCK Platform CA"
PROCESSOR_CA: Final = "Intel SGX PCK Processor CA"
PCK: Final = "Intel SGX PCK Certificate"
TCB_SIGNING: Final = "Intel SGX TCB Signing"

_ECDSA: Final = ECDSA(SHA256())


class Clock:
    """One moment, and the narrowest window around it of all that was found good then."""

    __slots__ = ("now", "valid_from", "valid_until")

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.valid_from = datetime.min.replace(tzinfo=now.tzinfo)
        self.valid_until = datetime.max.replace(tzinfo=now.tzinfo)

    def check(self, start: datetime, end: datetime, what: str) -> None:
        """VerifyError unless it is between `start` and `end`."""
        if self.now < start:
            raise VerifyError(f"{what}: valid from {start.isoformat()}, now is {self.now.isoformat()}")
        if self.now > end:
            raise VerifyError(f"{what}: expired {end.isoformat()}, now is {self.now.isoformat()}")
        self.valid_from, self.valid_until = max(self.valid_from, start), min(self.valid_until, end)

    def check_issue(self, start: datetime, end: datetime, what: str) -> None:
        """The same for what is issued anew every month; LackingError when a newer issue is wanted."""
        if self.now > end:
            raise LackingError(
                f"{what}: expired {end.isoformat()}, now is {self.now.isoformat()}, want a newer issue"
            )
        self.check(start, end, what)


@dataclass(frozen=True, slots=True)
class Root:
    """The pinned root, and whether its pin is a simulated platform's."""

    certificate: x509.Certificate
    sha256: bytes
    simulated: bool


@dataclass(frozen=True, slots=True)
class Path:
    """Certificates from a root down to the one whose key is wanted, all checked."""

    root: Root
    issuers: tuple[
        x509.Certificate, ...
    ]  # below the root, the leaf's own last; none where the root issued it
    leaf: x509.Certificate

    @property
    def key(self) -> EllipticCurvePublicKey:
        return _key(self.leaf)


def pck_path(pem: bytes, *, roots: Roots, clock: Clock) -> Path:
    """The path to the PCK certificate of a quote, through whichever of Intel's two CAs issued it."""
    found = _by_name(pem, "pck chain", roots)
    ca_name = PLATFORM_CA if PLATFORM_CA in found.certificates else PROCESSOR_CA
    found.want(ROOT, ca_name, PCK)
    ca, leaf = found.certificates[ca_name], found.certificates[PCK]
    root = found.root
    _check_issued(ca, root.certificate, clock, is_issuer=True)
    _check_issued(leaf, ca, clock, is_issuer=False)
    return Path(root, (ca,), leaf)


def signer_path(pem: bytes, *, roots: Roots, clock: Clock) -> Path:
    """The path to the certificate that signs TCB info and QE identities."""
    found = _by_name(pem, "tcb signing chain", roots)
    found.want(ROOT, TCB_SIGNING)
    root, leaf = found.root, found.certificates[TCB_SIGNING]
    _check_issued(leaf, root.certificate, clock, is_issuer=False)
    return Path(root, (), leaf)


def ca_path(pem: bytes, *, roots: Roots, clock: Clock) -> Path:
    """The path to one of Intel's two CAs that issue PCK certificates, as it comes with the CA's revocation list."""
    found = _by_name(pem, "pck crl chain", roots)
    ca_name = PLATFORM_CA if PLATFORM_CA in found.certificates else PROCESSOR_CA
    found.want(ROOT, ca_name)
    root, ca = found.root, found.certificates[ca_name]
    _check_issued(ca, root.certificate, clock, is_issuer=True)
    return Path(root, (), ca)


def check_revocation(
    crl: bytes, issuer: x509.Certificate, certificates: tuple[x509.Certificate, ...], clock: Clock
) -> None:
    """Refuse `certificates` on the issuer's revocation list, and a list that is foreign, forged or out of date."""
    what = f"revocation list of {common_name(issuer.subject)}"
    with strictly(what, "revocation list"):
        revocations = x509.load_der_x509_crl(crl)
        start, end, found = revocations.last_update_utc, revocations.next_update_utc, revocations.issuer
        is_partial = any(extension.critical for extension in revocations.extensions)
        algorithm = revocations.signature_algorithm_oid
        listed = [
            one
            for one in certificates
            if revocations.get_revoked_certificate_by_serial_number(one.serial_number) is not None
        ]
        is_signed = revocations.is_signature_valid(_key(issuer))
        check_whole_bytes(crl, revocations.signature, what)
    if found != issuer.subject:
        raise VerifyError(f"{what}: issuer is {common_name(found)}")
    if algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256 or not is_signed:
        raise VerifyError(f"{what}: signature is not its issuer's (ECDSA P-256, SHA-256)")
    if is_partial:
        raise VerifyError(f"{what}: has a critical extension, want a complete list")
    if end is None:
        raise VerifyError(f"{what}: has no next update, want one")
    clock.check_issue(start, end, what)
    for certificate in listed:
        raise VerifyError(
            f"{common_name(certificate.subject)}: serial {certificate.serial_number:#x} is revoked"
        )


def check_signature(signature: bytes, signed: bytes, key: EllipticCurvePublicKey, what: str) -> None:
    """VerifyError unless `signature` (r || s, big-endian, 64 bytes) is the key's over `signed`."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signed, _ECDSA)
    except InvalidSignature as error:
        raise VerifyError(f"{what} (ECDSA P-256, SHA-256)") from error


def signed_object(document: bytes, member: str, signer: Path) -> bytes:
    """The object in one of Intel's signed documents, exactly as signed. Its dates are the caller's to check."""
    parts = SignedJSON.parse(document, member)
    check_signature(parts.signature, parts.signed, signer.key, f"{member}: signature is not the tcb signer's")
    return parts.signed


def common_name(name: x509.Name) -> str:
    """The one common name, fit for a line of ours: whoever wrote it may have meant it for a terminal."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return sentence(str(values[0]), most=64) if len(values) == 1 else "without one common name"


@dataclass(frozen=True, slots=True)
class _Chain:
    subject: str
    root: Root
    certificates: Mapping[str, x509.Certificate]  # by what Intel calls each

    def want(self, *names: str) -> None:
        if self.certificates.keys() != {*names}:
            raise VerifyError(
                f"{self.subject}: names are {', '.join(self.certificates)}, want {', '.join(names)}"
            )


def _by_name(pem: bytes, subject: str, roots: Roots) -> _Chain:
    found: dict[str, x509.Certificate] = {}
    ders: dict[str, bytes] = {}
    for der in certificates(pem, subject, most=3):
        certificate = _load(der, subject)
        name = common_name(certificate.subject)
        plain = name.removesuffix(f" {SIMULATED_LABEL}")
        if plain in found:
            raise VerifyError(f"{subject}: {plain} appears twice")
        found[plain], ders[plain] = certificate, der
    if ROOT not in found:
        raise VerifyError(f"{subject}: lacks {ROOT}")
    digest = sha256(ders[ROOT]).digest()
    root = Root(found[ROOT], digest, roots.accepts(Anchor.INTEL, digest))
    for certificate in found.values():
        name = common_name(certificate.subject)
        if name.endswith(f" {SIMULATED_LABEL}") != root.simulated:
            want = "want it in every name of a simulated chain, and in no other"
            raise VerifyError(f"{subject}: name is {name}; {SIMULATED_LABEL}: {want}")
    return _Chain(subject, root, found)


def _load(der: bytes, what: str) -> x509.Certificate:
    with strictly(what, "certificate"):
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.issuer, certificate.public_key()
        for extension in certificate.extensions:
            if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
                raise VerifyError(f"{what}: critical extension {extension.oid.dotted_string} is not known")
        check_whole_bytes(der, certificate.signature, what)
    return certificate


def _check_issued(
    certificate: x509.Certificate, issuer: x509.Certificate, clock: Clock, *, is_issuer: bool
) -> None:
    what, by = common_name(certificate.subject), common_name(issuer.subject)
    clock.check(issuer.not_valid_before_utc, issuer.not_valid_after_utc, by)
    clock.check(certificate.not_valid_before_utc, certificate.not_valid_after_utc, what)
    if certificate.issuer != issuer.subject:
        raise VerifyError(f"{what}: issued by {common_name(certificate.issuer)}, want {by}")
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise VerifyError(f"{what}: signature algorithm is not ECDSA with SHA-256")
    _ = _key(issuer)
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise VerifyError(f"{what}: signature is not {by}'s (ECDSA P-256, SHA-256)") from error
    _check_role(certificate, what, is_issuer=is_issuer)


def _check_role(certificate: x509.Certificate, what: str, *, is_issuer: bool) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise VerifyError(f"{what}: lacks basic constraints or key usage") from error
    if is_issuer and not (constraints.ca and usage.key_cert_sign and usage.crl_sign):
        raise VerifyError(f"{what}: may not issue certificates and revocation lists")
    if not is_issuer and (constraints.ca or usage.key_cert_sign or not usage.digital_signature):
        raise VerifyError(f"{what}: may issue certificates or not sign, want the reverse")


def _key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise VerifyError(f"{common_name(certificate.subject)}: key is not on P-256")
    return key
