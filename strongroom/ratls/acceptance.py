"""When a peer's certificate is accepted: it is alive, it signs itself, and its evidence speaks for its key.

Such evidence can be relayed by whoever holds a certificate key of any acceptable machine. It opens the
connection; what decides is evidence made afterwards over that connection's exporter (docs/formats/evidence.md).
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import Purpose, certificate_challenge
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.ratls.certificate import MAX_LIFETIME, extract, load
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots

SKEW: Final = timedelta(seconds=60)  # how far the peer's clock may differ from ours


def accept(
    der: bytes,
    *,
    roots: Roots,
    now: datetime,
    issuers: CertificateTable | None = None,
    collateral: Collateral | None = None,
    carried: Collateral | None = None,
) -> Claims:
    """Claims of the machine that holds the certificate's key; whether they are acceptable is for a policy.

    `collateral` and `issuers` are the caller's own, as for verify_bundle; `carried` is what the peer sent beside its
    certificate, which has no room for it.
    Raises FormatError when the certificate is outside the profile, VerifyError when it is dead, does not sign
    itself, or carries evidence for another key or time.
    """
    certificate = load(der)
    _require_alive(certificate, now)
    _require_self_signed(certificate)
    bundle = extract(der)
    return verify_bundle(
        bundle if carried is None else replace(bundle, collateral=carried),
        purpose=Purpose.RA_TLS,
        challenge=certificate_challenge(certificate.not_valid_before_utc),
        key=spki(der),
        roots=roots,
        now=now,
        issuers=issuers,
        collateral=collateral,
    )


def spki(der: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a certificate's key, which must be P-256."""
    public = load(der).public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise FormatError("certificate: key is not on P-256")
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _require_alive(certificate: x509.Certificate, now: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start.second:
        raise FormatError(f"certificate: notBefore is {start.isoformat()}, want a whole minute")
    if end - start > MAX_LIFETIME:
        raise VerifyError(f"certificate: lifetime is {end - start}, want at most {MAX_LIFETIME}")
    # nothing is added to the certificate's own dates: they may be the last that a datetime can hold
    if not (start <= now + SKEW and now - SKEW <= end):
        raise VerifyError(
            f"certificate: valid {start.isoformat()} to {end.isoformat()}, and it is {now.isoformat()}"
        )


def _require_self_signed(certificate: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise VerifyError("certificate: it is not signed by its own key") from error
