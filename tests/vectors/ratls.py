"""Certificates that carry evidence in the form of the interoperable RA-TLS draft, as Strongroom sees them.

Strongroom's own profile is another one (strongroom.ratls), which has to refuse these; what they say is decoded here.
"""

from base64 import b64decode
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, VerifyError
from strongroom.ratls.certificate import OID, extract
from strongroom.verify.roots import Roots
from strongroom.wire.reader import Reader
from tests.vectors.index import Vector, VectorSet, certificates, window
from tests.vectors.judge import Observation
from tests.vectors.sgx import SGXQuote, signed_path

_HASHES: Final = {1: sha256}  # IANA "Named Information Hash Algorithm Registry"
_MOST_DEPTH: Final = 8


def observe_certificate(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """The evidence extension, and how quote, claims and key hang together."""
    observed = Observation()
    raw = vectors.read(vector, "cert")
    own = Observation()
    own.attempt(lambda: extract(_der(raw)))
    if not own.refusals:
        observed.refusals.append(VerifyError("certificate: taken for one of our own profile"))
    found = certificates(raw)
    if not found:
        observed.found["note"] = vector.expect.get("note")  # which says that the library cannot read it
        return observed
    (certificate,) = found
    extension = certificate.extensions.get_extension_for_oid(OID).value
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise FormatError("certificate: evidence is not opaque")
    reader = Reader(extension.value, "cbor")
    tag, (quote, claims) = _item(reader)
    reader.end()
    observed.found |= {"cbor_tag": tag, "not_after": certificate.not_valid_after_utc.isoformat()}
    observed.found |= _claims(certificate, quote, claims)
    now = vectors.moment([_quote_window(quote)])
    path = observed.attempt(lambda: signed_path(SGXQuote.read(quote), roots, now))
    observed.found["quote_signature_chain_valid"] = path is not None
    return observed


def _claims(certificate: x509.Certificate, quote: bytes, claims: bytes) -> dict[str, Any]:
    reader = Reader(claims, "cbor claims")
    members = _item(reader)
    reader.end()
    algorithm, digest = _pair(members["pubkey-hash"])
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    report_data = SGXQuote.read(quote).parts["report_body.REPORTDATA"]
    return {
        "claims": sorted(members),
        "pubkey_hash_alg": algorithm,
        "pubkey_hash_matches_spki": _HASHES[algorithm](spki).digest() == digest,
        "quote_report_data_is_sha256_of_claims": report_data == sha256(claims).digest().ljust(64, b"\0"),
    }


def _pair(packed: Any) -> tuple[int, bytes]:
    algorithm, digest = _item(Reader(packed, "cbor hash entry")) if isinstance(packed, bytes) else packed
    return algorithm, digest


def _quote_window(quote: bytes) -> tuple[datetime, datetime]:
    leaf = certificates(SGXQuote.read(quote).parts["pck_certificate_chain"])[0]
    return window(leaf)


def _der(raw: bytes) -> bytes:
    text = raw.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END")[0]
    return b64decode(text) if text else raw


def _item(reader: Reader, depth: int = 0) -> Any:
    """One CBOR item of the kinds these certificates hold; a tag comes as (number, item)."""
    if depth > _MOST_DEPTH:
        raise FormatError("cbor: too deep")
    head = reader.u8()
    kind, short = head >> 5, head & 31
    if short > 27:
        raise FormatError("cbor: a length of no fixed size")
    value = short if short < 24 else int.from_bytes(reader.take(1 << (short - 24)), "big")
    match kind:
        case 0:
            return value
        case 2:
            return reader.take(value)
        case 3:
            return reader.take(value).decode()
        case 4 if value <= reader.remaining:
            return [_item(reader, depth + 1) for _ in range(value)]
        case 5 if value <= reader.remaining:
            return {_item(reader, depth + 1): _item(reader, depth + 1) for _ in range(value)}
        case 6:
            return value, _item(reader, depth + 1)
    raise FormatError(f"cbor: item of kind {kind}")
