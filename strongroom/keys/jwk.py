"""Public keys as JSON Web Keys: the kinds a machine may offer to have a secret sealed to (RFC 7518 section 6).

    kty  crv           alg               members besides
    EC   P-256, P-521  ECDH-ES+A256KW    x, y: fixed width, big endian
    RSA                RSA-OAEP-256      n: 2048..4096 bits, e: 65537, both without leading zero octets

All integers are base64url without padding. No other member is taken: a private one here would be a key in the open.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, b64u, unb64u

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ECDH: Final = "ECDH-ES+A256KW"
RSA_OAEP: Final = "RSA-OAEP-256"
_RSA_BITS: Final = range(2048, 4097)
_RSA_EXPONENT: Final = 65537


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    curve: ec.EllipticCurve
    width: int  # octets of a coordinate


CURVES: Final = (Curve("P-256", ec.SECP256R1(), 32), Curve("P-521", ec.SECP521R1(), 66))


def curve_of(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> Curve:
    """The row of CURVES this key lies on; FormatError for any other curve."""
    for row in CURVES:
        if row.curve.name == key.curve.name:
            return row
    raise FormatError(f"jwk: curve is {key.curve.name}, want {_names()}")


def pack_point(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The members crv, kty, x, y, in that order: the order an `epk` header is serialised in."""
    row, numbers = curve_of(key), key.public_numbers()
    x, y = (b64u(n.to_bytes(row.width, "big")) for n in (numbers.x, numbers.y))
    return {"crv": row.name, "kty": "EC", "x": x, "y": y}


def parse_point(value: JSON, subject: str) -> ec.EllipticCurvePublicKey:
    """The key of exactly crv, kty, x, y; FormatError when a member is wrong or the point is not on the curve."""
    texts = _texts(value, {"crv", "kty", "x", "y"}, subject)
    row = next((row for row in CURVES if row.name == texts["crv"]), None)
    if texts["kty"] != "EC" or row is None:
        got = f"kty {_short(texts['kty'])}, crv {_short(texts['crv'])}"
        raise FormatError(f"{subject}: {got}, want EC on {_names()}")
    x, y = (_integer(texts[member], f"{subject}.{member}", row.width) for member in ("x", "y"))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, row.curve).public_key()
    except ValueError:
        raise FormatError(f"{subject}: the point is not on {row.name}") from None


def pack_jwk(key: PublicKey) -> dict[str, JSON]:
    """The JWK of a public key, with the `alg` it is meant for."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {**pack_point(key), "alg": ECDH}
    numbers = key.public_numbers()
    n, e = (b64u(v.to_bytes((v.bit_length() + 7) // 8, "big")) for v in (numbers.n, numbers.e))
    return {"kty": "RSA", "alg": RSA_OAEP, "n": n, "e": e}


def parse_jwk(value: JSON, subject: str) -> PublicKey:
    """The public key of a JWK with exactly the members above; FormatError naming `subject` for anything else."""
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: got {type(value).__name__}, want an object")
    if value.get("kty") == "RSA":
        return _parse_rsa(value, subject)
    if value.get("alg") != ECDH:
        raise FormatError(
            f"{subject}.alg: got {_short(value.get('alg'))}, want {ECDH} or, for RSA, {RSA_OAEP}"
        )
    return parse_point({name: member for name, member in value.items() if name != "alg"}, subject)


def _parse_rsa(value: JSON, subject: str) -> rsa.RSAPublicKey:
    texts = _texts(value, {"kty", "alg", "n", "e"}, subject)
    if texts["alg"] != RSA_OAEP:
        raise FormatError(f"{subject}.alg: got {_short(texts['alg'])}, want {RSA_OAEP}")
    n, e = (_integer(texts[member], f"{subject}.{member}") for member in ("n", "e"))
    if n.bit_length() not in _RSA_BITS or e != _RSA_EXPONENT:
        raise FormatError(
            f"{subject}: rsa of {n.bit_length()} bits, want 2048..4096 with exponent {_RSA_EXPONENT}"
        )
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        raise FormatError(f"{subject}: not an rsa public key") from None


def _texts(value: JSON, members: set[str], subject: str) -> dict[str, str]:
    if not isinstance(value, dict) or value.keys() != members:
        got = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise FormatError(f"{subject}: got {_short(got)}, want exactly {', '.join(sorted(members))}")
    texts = {name: member for name, member in value.items() if isinstance(member, str)}
    if texts.keys() != members:
        raise FormatError(f"{subject}.{min(members - texts.keys())}: not text")
    return texts


def _integer(text: str, subject: str, width: int | None = None) -> int:
    octets = unb64u(text, subject)
    if width is not None and len(octets) != width:
        raise FormatError(f"{subject}: got {len(octets)} bytes, want {width}")
    if width is None and not 1 <= len(octets) <= _RSA_BITS[-1] // 8:
        raise FormatError(f"{subject}: got {len(octets)} bytes, want 1..{_RSA_BITS[-1] // 8}")
    if width is None and not octets[0]:
        raise FormatError(f"{subject}: leading zero octet, want none")
    return int.from_bytes(octets, "big")


def _names() -> str:
    return " or ".join(row.name for row in CURVES)


def _short(value: JSON) -> str:
    return repr(value)[:80]
