"""The token of somebody else's attestation service, as one who consumes it reads it.

`lifetime` reads when any web token ends, for whoever keeps one and believes nothing in it. `check_ear` is for those who
do: the key in a token's header is no trust by itself, so a signer counts only by a name that is known, or by
certificates (`x5c`) under a known root.

Source: draft-ietf-rats-ear; the claims as Trustee's attestation service writes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import JSON, parse_json, unb64, unb64u
from strongroom.wire.line import sentence

MAX_TOKEN: Final = 256 << 10  # characters
MAX_CHAIN: Final = 5  # certificates
PROFILE: Final = "tag:github.com,2024:confidential-containers/Trustee"
AFFIRMING: Final = "affirming"
_WIDTH: Final = 32  # octets of r and of s
_LATEST: Final = 1 << 40
_TEE_KEY: Final = (  # where services put the key that a token speaks for
    "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey",
    "/customized_claims/runtime_data/tee-pubkey",
    "/tdx/attester_runtime_data/tee-pubkey",
    "/tdx/attester_user_data/tee-pubkey",
    "/tee-pubkey",
)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """From when to when a token is good by its own word, in unix seconds."""

    issued: int | None
    expires: int

    @property
    def seconds(self) -> int | None:
        """How long it lives; None where it does not say since when."""
        return None if self.issued is None else max(0, self.expires - self.issued)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Whose tokens are believed: keys by their `kid`, and the roots (DER) above the certificates of others."""

    keys: Mapping[str, ec.EllipticCurvePublicKey] = field(default_factory=dict)
    roots: tuple[bytes, ...] = ()


def lifetime(token: str) -> Lifetime | None:
    """When a token ends, unverified; None where it does not say, or is no web token at all."""
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3:
        return None
    try:
        value = parse_json(unb64u(parts[1], "token"), "token", max_bytes=MAX_TOKEN, floats=True)
    except FormatError:
        return None
    expires, issued = (_seconds(value, name) for name in ("exp", "iat"))
    return None if expires is None else Lifetime(issued, expires)


def check_ear(
    token: str,
    *,
    signers: Signers,
    tee_pubkey: Mapping[str, JSON] | None,
    now: datetime,
    statuses: frozenset[str] = frozenset({AFFIRMING}),
) -> dict[str, JSON]:
    """The claims of a token that a believed signer made, that is in time, whose every submodule has one of `statuses`
    and that speaks for `tee_pubkey` (a JWK; None for anybody's). FormatError or VerifyError otherwise.
    """
    claims = _signed(token, signers, now)
    if claims.get("eat_profile") != PROFILE:
        raise VerifyError(f"token: profile is {_shown(claims.get('eat_profile'))}, want {PROFILE}")
    span = lifetime(token)
    if span is None or span.issued is None or not span.issued <= now.timestamp() < span.expires:
        raise VerifyError("token: expired, not yet good, or it does not say")
    submods = claims.get("submods")
    if not isinstance(submods, dict) or not submods:
        raise FormatError("token: no submods, want at least one")
    for name, submod in submods.items():
        status = submod.get("ear.status") if isinstance(submod, dict) else None
        if status not in statuses:
            raise VerifyError(
                f"token: {sentence(name, most=40)} is {_shown(status)}, want {' or '.join(sorted(statuses))}"
            )
    if tee_pubkey is not None and tee_key(claims) != dict(tee_pubkey):
        raise VerifyError("token: speaks for another key than ours")
    return claims


def tee_key(claims: Mapping[str, JSON]) -> JSON:
    """The public key (JWK) a token speaks for, wherever its service puts it; None when it is nowhere."""
    for pointer in _TEE_KEY:
        at: JSON = dict(claims)
        for step in pointer.split("/")[1:]:
            at = at.get(step) if isinstance(at, dict) else None
        if at is not None:
            return at
    return None


def _signed(token: str, signers: Signers, now: datetime) -> dict[str, JSON]:
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        raise FormatError(f"token: not a compact JWS of at most {MAX_TOKEN} characters")
    parts = [unb64u(part, "token") for part in token.split(".")]
    header, claims = (_object(part) for part in parts[:2])
    if header.get("alg") != "ES256" or len(parts[2]) != 2 * _WIDTH:
        raise FormatError("token: not signed with ES256")
    key = _signer(header, signers, now)
    r, s = (int.from_bytes(half, "big") for half in (parts[2][:_WIDTH], parts[2][_WIDTH:]))
    try:
        key.verify(encode_dss_signature(r, s), token.rpartition(".")[0].encode(), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise VerifyError("token: the signature is not its signer's") from None
    return claims


def _signer(header: dict[str, JSON], signers: Signers, now: datetime) -> ec.EllipticCurvePublicKey:
    jwk = header.get("jwk")
    places = (header, jwk if isinstance(jwk, dict) else {})
    for place in places:
        name = place.get("kid")
        if isinstance(name, str) and name in signers.keys:
            return signers.keys[name]
    for place in places:
        chain = place.get("x5c")
        if isinstance(chain, list) and chain:
            return _certified(chain, signers, now)
    raise VerifyError("token: signed by nobody known, want a known key or certificates under a known root")


def _certified(chain: list[JSON], signers: Signers, now: datetime) -> ec.EllipticCurvePublicKey:
    if len(chain) > MAX_CHAIN or not all(isinstance(text, str) for text in chain):
        raise FormatError(f"token: x5c is not a list of at most {MAX_CHAIN} certificates")
    ders = [unb64(str(text), "token x5c") for text in chain]
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
        roots = [x509.load_der_x509_certificate(der) for der in signers.roots]
        path = certificates
        if certificates[-1] not in roots:
            path = [*certificates, *(root for root in roots if root.subject == certificates[-1].issuer)]
        if path[-1] not in roots:
            raise VerifyError("token: its certificates end in no known root")
        for certificate, issuer in pairwise(path):
            certificate.verify_directly_issued_by(issuer)
            if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise VerifyError("token: a certificate is issued by one that is no authority")
        for certificate in path:
            if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                raise VerifyError("token: a certificate of its signer is not in time")
        key = path[0].public_key()
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound, x509.InvalidVersion):
        raise VerifyError("token: certificates of its signer do not form a chain") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerifyError("token: its signer's key is not P-256")
    return key


def _seconds(value: JSON, name: str) -> int | None:
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _LATEST:
        return None
    return int(found)


def _object(part: bytes) -> dict[str, JSON]:
    value = parse_json(part, "token", max_bytes=MAX_TOKEN, floats=True)
    if not isinstance(value, dict):
        raise FormatError("token: want objects")
    return value


def _shown(value: JSON) -> str:
    return sentence(str(value), most=60)
