"""The path from an NVIDIA certificate to a pinned root: devices, signers of reference values, OCSP responders.

Every key is on P-384 and every signature is ECDSA with SHA-384, whatever a certificate says of itself: an
algorithm is never taken from the evidence. Devices share all but two of their certificates, so what depends on
bytes alone (parsing, signatures) is remembered by those bytes; time and roots are looked at anew every time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from strongroom.errors import VerifyError
from strongroom.verify.certificates import load
from strongroom.verify.roots import SIMULATED_LABEL, Anchor, Roots
from strongroom.wire.line import sentence

_REMEMBERED: Final = 512


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that holds: leaf first, root last."""

    certificates: tuple[x509.Certificate, ...]
    root_sha256: bytes
    simulated: bool
    expired: tuple[str, ...]  # names of certificates beyond their time, where the caller accepts that


@lru_cache(maxsize=_REMEMBERED)
def certificate(der: bytes, what: str) -> x509.Certificate:
    """The certificate, with a key on P-384, or VerifyError."""
    loaded = load(der, what)
    key_of(loaded, what)
    return loaded


def key_of(certificate: x509.Certificate, what: str) -> EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise VerifyError(f"{what}: key is not on P-384")
    return key


def verify_chain(
    chain: Sequence[x509.Certificate],
    *,
    anchor: Anchor,
    roots: Roots,
    now: datetime,
    names: Sequence[str],
    accept_expired: bool = False,
    above: int = 0,
) -> Chain:
    """The chain, or VerifyError naming the first link that does not hold; `names` says what each link is.

    `above` is how many levels the first one stands above a leaf: more than none, and it has to be an issuer.
    `accept_expired` concerns the end of validity of all but the root. A start in the future is never accepted.
    """
    if len(chain) != len(names):
        raise VerifyError(f"{anchor} chain: {len(chain)} certificates, want {len(names)}")
    digest = sha256(chain[-1].public_bytes(Encoding.DER)).digest()
    simulated = roots.accepts(anchor, digest)
    expired: list[str] = []
    for position, (link, name) in enumerate(zip(chain, names, strict=True)):
        if simulated and position + above and SIMULATED_LABEL not in common_name(link.subject):
            raise VerifyError(f"{name}: simulated issuer, name lacks the words {SIMULATED_LABEL}")
        _check_role(link, name, below=position + above)
        if check_validity(link, name, now, accept_expired=accept_expired and link is not chain[-1]):
            expired.append(name)
    # The root is who it is by its digest: its own signature over itself adds nothing.
    for (link, issuer), name in zip(pairwise(chain), names, strict=False):
        check_issued(link, issuer, name)
    return Chain(tuple(chain), digest, simulated, tuple(expired))


def check_validity(
    certificate: x509.Certificate, what: str, now: datetime, *, accept_expired: bool = False
) -> bool:
    """Whether it has expired, which raises unless that is accepted."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        raise VerifyError(f"{what}: valid from {start.isoformat()}, now is {now.isoformat()}")
    if now <= end:
        return False
    if not accept_expired:
        raise VerifyError(f"{what}: expired {end.isoformat()}, now is {now.isoformat()}")
    return True


@lru_cache(maxsize=_REMEMBERED)
def check_issued(certificate: x509.Certificate, issuer: x509.Certificate, what: str) -> None:
    """Refuse a certificate that this issuer did not sign with ECDSA over SHA-384."""
    by = shown(issuer.subject)
    if certificate.issuer != issuer.subject:
        raise VerifyError(f"{what}: issued by {shown(certificate.issuer)}, want {by}")
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise VerifyError(f"{what}: not signed with ECDSA and SHA-384")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise VerifyError(f"{what}: signature is not {by}'s (ECDSA P-384, SHA-384)") from error


def check_signed(signed: bytes, signature: bytes, signer: x509.Certificate, what: str) -> None:
    """Refuse bytes whose signature (r then s, 96 bytes, big-endian) is not this signer's."""
    der = encode_dss_signature(int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big"))
    try:
        key_of(signer, what).verify(der, signed, ECDSA(SHA384()))
    except InvalidSignature as error:
        raise VerifyError(f"{what}: signature is not its certificate's (ECDSA P-384, SHA-384)") from error


def common_name(name: x509.Name) -> str:
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(values[0]) if len(values) == 1 else "without one common name"


def shown(name: x509.Name) -> str:
    # Shown before any signature is checked: whoever wrote it may have meant it for a terminal.
    return sentence(common_name(name), most=64)


def _check_role(certificate: x509.Certificate, name: str, *, below: int) -> None:
    """A leaf (`below` is 0) may sign what is not a certificate; every other may issue that many levels below it."""
    constraints: x509.BasicConstraints | None = None
    usage: x509.KeyUsage | None = None
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
        elif extension.critical:
            raise VerifyError(
                f"{name}: extension {extension.oid.dotted_string} is critical and not understood"
            )
    if usage is None:
        raise VerifyError(f"{name}: lacks key usage")
    is_issuer = constraints is not None and constraints.ca
    if not below:
        if is_issuer or usage.key_cert_sign or not usage.digital_signature:
            raise VerifyError(f"{name}: is for issuing certificates, want one for signatures")
        return
    if not is_issuer or not usage.key_cert_sign:
        raise VerifyError(f"{name}: may not issue certificates")
    depth = None if constraints is None else constraints.path_length
    if depth is not None and depth < below - 1:
        raise VerifyError(f"{name}: may have {depth} issuers below it, has {below - 1}")
