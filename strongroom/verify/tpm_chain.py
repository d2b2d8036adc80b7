"""Is this attestation key in a TPM that a cloud vouches for? Its certificate, up to a pinned root.

The answer is "in some vTPM of that cloud", never in whose. Where hardware evidence names the key (Azure), that
is the stronger path, and this one is a second opinion.

Signatures are RSA with PKCS #1 v1.5 padding and SHA-256, SHA-384 or SHA-512, whatever a certificate says.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from strongroom.errors import VerifyError
from strongroom.verify.certificates import check_whole_bytes, strictly
from strongroom.verify.roots import SIMULATED_LABEL, Anchor, Roots
from strongroom.verify.tpm import SigningKey, key_sha256
from strongroom.wire.line import sentence

MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE: Final = 16 * 1024  # bytes
_EK: Final = "2.23.133.8.1"  # tcg-kp-EKCertificate: what Google's older authority writes for its AKs too
_AIK: Final = "2.23.133.8.3"  # tcg-kp-AIKCertificate
_PURPOSES: Final = {Anchor.AZURE_VTPM: {_AIK}, Anchor.GCP_VTPM: {_AIK, _EK}}
_HASHES: Final = {"sha256", "sha384", "sha512"}
_UNDERSTOOD: Final = {  # extensions that may be critical
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,  # maker and model of the TPM, in Google's
}
_LONG_NAME: Final = "Attribute's length must be"  # Google's older authority has names beyond the 64 allowed


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """An attestation key with a certificate of a cloud's vTPM authority."""

    key: RSAPublicKey
    key_sha256: bytes
    simulated: bool
    root_sha256: bytes
    not_checked: tuple[str, ...]


def verify_ak_chain(chain: Sequence[bytes], *, anchor: Anchor, roots: Roots, now: datetime) -> CertifiedKey:
    """The key of `chain[0]`, or VerifyError naming the first link that does not hold.

    `chain` is DER, leaf first, each signed by the next, and ends with the root: Azure and Google send it, or the
    verifier has it. Only the root's pin makes it one.
    """
    purposes = _PURPOSES.get(anchor)
    if purposes is None:
        raise VerifyError(f"ak certificate: anchor is {anchor}, want that of a vtpm")
    if not 2 <= len(chain) <= MAX_CERTIFICATES:
        raise VerifyError(f"ak certificate: chain of {len(chain)}, want 2..{MAX_CERTIFICATES}")
    root_sha256 = sha256(chain[-1]).digest()
    is_simulated = roots.accepts(anchor, root_sha256)
    certificates = [_load(der, _what(n, len(chain))) for n, der in enumerate(chain)]
    if is_simulated and SIMULATED_LABEL not in _shown(certificates[-1].subject):
        raise VerifyError(f"ak root: simulated, and its name lacks the words {SIMULATED_LABEL}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _LONG_NAME, UserWarning)
        for depth, certificate in enumerate(certificates):
            what = _what(depth, len(chain))
            issuer = certificates[min(depth + 1, len(certificates) - 1)]
            _check_window(certificate, what, now)
            _check_extensions(certificate, what)
            _check_role(certificate, what, depth)
            _check_issued(certificate, issuer, what)
    _check_purpose(certificates[0], purposes)
    key = _rsa(certificates[0], "ak certificate")
    return CertifiedKey(
        key, key_sha256(key), is_simulated, root_sha256, ("revocation of the ak: no revocation list given",)
    )


def complete_chain(given: Sequence[bytes], others: Sequence[bytes], *, key: SigningKey) -> tuple[bytes, ...]:
    """The certificate of `key`, which is the first given, and by name the issuers above it, the root last.

    Nothing is verified but which key it is for. Raises VerifyError for another key, or a link that is missing.
    """
    leaf, *more = (_load(der, "ak certificate") for der in given) if given else (None,)
    if leaf is None:
        raise VerifyError("ak certificate: none given, want one")
    if key_sha256(_rsa(leaf, "ak certificate")) != key_sha256(key):
        raise VerifyError("ak certificate: is for another key")
    by_name = {one.subject: one for one in (*more, *(_load(der, "ak issuer") for der in others))}
    chain = [leaf]
    while chain[-1].issuer != chain[-1].subject:
        issuer = by_name.get(chain[-1].issuer)
        if issuer is None or len(chain) == MAX_CERTIFICATES:
            raise VerifyError(
                f"ak certificate: no certificate of {_shown(chain[-1].issuer)}, which issued the last of {len(chain)}"
            )
        chain.append(issuer)
    return tuple(one.public_bytes(Encoding.DER) for one in chain)


def split_der(data: bytes) -> tuple[bytes, ...]:
    """The certificates in concatenated DER, without the zeros that fill up an NV index behind them.

    Raises VerifyError for anything else between, behind, or cut off.
    """
    found: list[bytes] = []
    while data.strip(b"\0"):
        size = _der_size(data)
        if len(found) == MAX_CERTIFICATES or not 0 < size <= min(len(data), MAX_CERTIFICATE):
            raise VerifyError(f"ak certificates: no whole certificate after {len(found)} of them")
        found.append(data[:size])
        data = data[size:]
    return tuple(found)


def _der_size(data: bytes) -> int:
    # A SEQUENCE whose length takes two bytes: a certificate is never shorter, and we take none that is longer.
    return int.from_bytes(data[2:4], "big") + 4 if data[:2] == b"\x30\x82" else 0


def _what(depth: int, length: int) -> str:
    if depth == 0:
        return "ak certificate"
    return "ak root" if depth == length - 1 else f"ak issuer {depth}"


def _load(der: bytes, what: str) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise VerifyError(f"{what}: {len(der)} bytes, want at most {MAX_CERTIFICATE}")
    with strictly(what, "certificate", tolerated=_LONG_NAME):
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
        _ = certificate.not_valid_before_utc, certificate.signature_hash_algorithm
        check_whole_bytes(der, certificate.signature, what)
    return certificate


def _check_window(certificate: x509.Certificate, what: str, now: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        raise VerifyError(f"{what}: valid from {start.isoformat()}, now is {now.isoformat()}")
    if now > end:
        raise VerifyError(f"{what}: expired {end.isoformat()}, now is {now.isoformat()}")


def _check_extensions(certificate: x509.Certificate, what: str) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise VerifyError(f"{what}: critical extension {extension.oid.dotted_string} is not understood")


def _check_role(certificate: x509.Certificate, what: str, depth: int) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise VerifyError(f"{what}: lacks basic constraints or key usage") from error
    if depth == 0:
        if constraints.ca or not usage.digital_signature or usage.key_cert_sign:
            raise VerifyError(f"{what}: is not for signatures alone")
    elif not constraints.ca or not usage.key_cert_sign:
        raise VerifyError(f"{what}: may not issue certificates")
    elif constraints.path_length is not None and constraints.path_length < depth - 1:
        raise VerifyError(f"{what}: may have {constraints.path_length} issuers below it, has {depth - 1}")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, what: str) -> None:
    by = _shown(issuer.subject)
    if certificate.issuer != issuer.subject:
        raise VerifyError(f"{what}: issued by {_shown(certificate.issuer)}, want {by}")
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES:
        raise VerifyError(f"{what}: signature is not over SHA-256, SHA-384 or SHA-512")
    try:
        _rsa(issuer, by).verify(
            certificate.signature, certificate.tbs_certificate_bytes, PKCS1v15(), algorithm
        )
        certificate.verify_directly_issued_by(issuer)  # both statements of the algorithm agree
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise VerifyError(f"{what}: signature is not {by}'s (RSA, PKCS #1 v1.5)") from error


def _check_purpose(leaf: x509.Certificate, purposes: set[str]) -> None:
    try:
        found = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise VerifyError("ak certificate: has no extended key usage, want a tpm's") from error
    if not purposes & {oid.dotted_string for oid in found}:
        raise VerifyError(f"ak certificate: not for {' or '.join(sorted(purposes))}, a tpm's attestation key")


def _rsa(certificate: x509.Certificate, what: str) -> RSAPublicKey:
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size not in (2048, 3072, 4096):
        raise VerifyError(f"{what}: key is not RSA of 2048, 3072 or 4096 bits")
    return key


def _shown(name: x509.Name) -> str:
    # Shown before any signature is checked: whoever wrote it may have meant it for a terminal.
    values = [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return sentence(values[0], most=120) if len(values) == 1 else "one without a common name"
