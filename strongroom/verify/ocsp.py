"""What NVIDIA's OCSP responder last said of a certificate: answers that travel with the evidence ("stapled").

An answer is believed when it is signed by the certificate's own issuer, or by a responder which that issuer
certified for this purpose (RFC 6960, 4.2.2.2), names exactly this certificate by SHA-384, is within its own
time, and is younger than the caller's limit. An answer that is missing, unknown, or late is no answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha1, sha384
from itertools import pairwise
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from strongroom.errors import VerifyError
from strongroom.verify.lacking import LackingError
from strongroom.verify.nvidia_chain import certificate, check_issued, check_validity, key_of, shown

MAX_BYTES: Final = 16 * 1024
MAX_ANSWERS: Final = 64  # eight GPUs and four switches have some twenty certificates to ask about
MAX_RESPONDERS: Final = 4
_SKEW: Final = timedelta(minutes=5)  # the responder's clock may be this far ahead of ours
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Answers:
    """DER responses in any order, and how they are judged."""

    responses: tuple[bytes, ...]
    max_age: timedelta = timedelta(days=1)  # since thisUpdate; NVIDIA's own answers are good for a day
    hold: Literal["refuse", "accept"] = "refuse"  # "certificate hold": suspended, may come back

    def __post_init__(self) -> None:
        if len(self.responses) > MAX_ANSWERS:
            raise VerifyError(f"ocsp: {len(self.responses)} answers, want at most {MAX_ANSWERS}")


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of one certificate; a revoked or unknown one raises instead."""

    subject: str
    serial: int
    status: Literal["good", "hold"]
    this_update: datetime
    next_update: datetime


def check_statuses(
    chain: Sequence[x509.Certificate], answers: Answers, *, now: datetime
) -> tuple[Status, ...]:
    """The status of every certificate of `chain` but its root, or VerifyError at the first that has none."""
    responses = [_load(der) for der in answers.responses]
    return tuple(
        _status(_about(responses, subject, issuer), subject, issuer, answers, now)
        for subject, issuer in pairwise(chain)
    )


def answered(
    der: bytes, subject: x509.Certificate, issuer: x509.Certificate, *, now: datetime
) -> tuple[datetime, datetime]:
    """thisUpdate and nextUpdate of a genuine answer about `subject`, whatever it says of it."""
    return _period(_about([_load(der)], subject, issuer), subject, issuer, now)


@lru_cache(maxsize=128)
def _load(der: bytes) -> ocsp.OCSPResponse:
    if len(der) > MAX_BYTES:
        raise VerifyError(f"ocsp: {len(der)} bytes, want at most {MAX_BYTES}")
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise VerifyError(f"ocsp: the responder answered {response.response_status.name.lower()}")
        # One answer each: which of several would be meant is nothing to guess at. The library reads each part
        # when it is asked for, so all that is read later is read here once.
        _ = (
            response.serial_number,
            response.hash_algorithm,
            response.issuer_name_hash,
            response.issuer_key_hash,
        )
        _ = response.certificate_status, response.revocation_time_utc, response.revocation_reason
        _ = response.this_update_utc, response.next_update_utc, response.responder_name, response.certificates
        _ = response.extensions, response.single_extensions
    except _UNREADABLE as error:
        raise VerifyError("ocsp: not one answer we can read") from error
    if (
        b"\0" + response.signature not in der
    ):  # a bit string with bits to spare: a second encoding of one answer
        raise VerifyError("ocsp: signature has unused bits, want whole bytes")
    return response


def _about(
    responses: Iterable[ocsp.OCSPResponse], subject: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPResponse:
    want = (subject.serial_number, _name_hash(issuer), sha384(_key_bits(issuer)).digest())
    for response in responses:
        if isinstance(response.hash_algorithm, SHA384) and want == (
            response.serial_number,
            response.issuer_name_hash,
            response.issuer_key_hash,
        ):
            return response
    raise LackingError(f"ocsp: no answer names {shown(subject.subject)} by SHA-384, want one")


def _status(
    response: ocsp.OCSPResponse,
    subject: x509.Certificate,
    issuer: x509.Certificate,
    answers: Answers,
    now: datetime,
) -> Status:
    name = shown(subject.subject)
    start, end = _period(response, subject, issuer, now)
    if now - start > answers.max_age:
        raise VerifyError(f"ocsp: the answer about {name} is older than {answers.max_age}")
    return Status(name, subject.serial_number, _judged(response, name, answers), start, end)


def _period(
    response: ocsp.OCSPResponse, subject: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> tuple[datetime, datetime]:
    name = shown(subject.subject)
    responder = _responder(response, issuer, now)
    _check_signature(response, responder)
    start, end = response.this_update_utc, response.next_update_utc
    if end is None:
        raise VerifyError(f"ocsp: the answer about {name} has no next update, want one")
    if now + _SKEW < start:
        raise VerifyError(
            f"ocsp: the answer about {name} is of {start.isoformat()}, now is {now.isoformat()}"
        )
    if now > end:
        raise LackingError(
            f"ocsp: the answer about {name} ended {end.isoformat()}, now is {now.isoformat()}, want a newer one"
        )
    return start, end


def _judged(response: ocsp.OCSPResponse, name: str, answers: Answers) -> Literal["good", "hold"]:
    match response.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return "good"
        case ocsp.OCSPCertStatus.REVOKED:
            reason, since = response.revocation_reason, response.revocation_time_utc
            if reason is x509.ReasonFlags.certificate_hold and answers.hold == "accept":
                return "hold"
            words = f"since {since.isoformat()}" if since else "at no known time"
            raise VerifyError(f"ocsp: {name} is revoked {words} ({reason.value if reason else 'no reason'})")
        case _:
            raise VerifyError(f"ocsp: {name} is not known to its responder")


def _responder(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> x509.Certificate:
    if _is_named(response, issuer):
        return issuer
    given = response.certificates
    if len(given) > MAX_RESPONDERS:
        raise VerifyError(f"ocsp: {len(given)} responder certificates, want at most {MAX_RESPONDERS}")
    for candidate in given:
        responder = certificate(candidate.public_bytes(Encoding.DER), "ocsp responder")
        if _is_named(response, responder):
            _check_delegate(responder, issuer, now)
            return responder
    raise VerifyError("ocsp: signed neither by the issuer nor by a responder whose certificate is there")


def _check_delegate(responder: x509.Certificate, issuer: x509.Certificate, now: datetime) -> None:
    what = "ocsp responder"
    check_issued(responder, issuer, what)
    check_validity(responder, what, now)
    present = {type(extension.value): extension.value for extension in responder.extensions}
    purposes = present.get(x509.ExtendedKeyUsage)
    if not isinstance(purposes, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        raise VerifyError(f"{what}: its issuer did not certify it for OCSP")
    if x509.OCSPNoCheck not in present:  # or somebody would have to ask about the responder, and so on
        raise VerifyError(f"{what}: lacks the no-check mark, want it")


@lru_cache(maxsize=128)
def _verified(signed: bytes, signature: bytes, responder: x509.Certificate) -> None:
    try:
        key_of(responder, "ocsp responder").verify(signature, signed, ECDSA(SHA384()))
    except InvalidSignature as error:
        raise VerifyError("ocsp: signature is not its responder's (ECDSA P-384, SHA-384)") from error


def _check_signature(response: ocsp.OCSPResponse, responder: x509.Certificate) -> None:
    if response.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise VerifyError("ocsp: not signed with ECDSA and SHA-384")
    _verified(response.tbs_response_bytes, response.signature, responder)


def _is_named(response: ocsp.OCSPResponse, candidate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return candidate.subject == response.responder_name
    # SHA-1 only finds the certificate (RFC 6960, KeyHash); its signature decides.
    return response.responder_key_hash == sha1(_key_bits(candidate), usedforsecurity=False).digest()


def _name_hash(issuer: x509.Certificate) -> bytes:
    return sha384(issuer.subject.public_bytes()).digest()


def _key_bits(certificate: x509.Certificate) -> bytes:
    return key_of(certificate, "ocsp issuer").public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
