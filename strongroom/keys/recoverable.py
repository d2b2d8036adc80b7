"""Signatures that name their signer: ECDSA on secp256k1 as 65 bytes, r || s || v.

r and s are 32 bytes big-endian and s is low; v (0..3) says which of the points with this r was meant, so that the
public key can be computed from signature and digest alone. Ethereum writes v + 27. The nonce is RFC 6979's, with
HMAC-SHA256.

Signing happens in OpenSSL. What is computed here is computed from public values only (digest, signature, public
key), because whole numbers of Python take a time that depends on them.

Source: SEC 1 version 2.0, section 4.1.6.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, VerifyError

CURVE: Final = ec.SECP256K1()
ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
SIZE: Final = 65  # bytes of a signature
DIGEST: Final = 32  # bytes

_Affine = tuple[int, int]
_Point = tuple[int, int, int]  # Jacobian: (X/Z^2, Y/Z^3); Z = 0 is the point at infinity

_P: Final = 2**256 - 2**32 - 977
_G: Final = (
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)
_SIGNING: Final = ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True)


def private_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The key with this 32-byte big-endian scalar; FormatError when it is none of 1..n-1."""
    scalar = int.from_bytes(secret, "big")
    if len(secret) != 32 or not 0 < scalar < ORDER:
        raise FormatError("secp256k1: the secret is not 32 bytes, or not a scalar of the curve")
    return ec.derive_private_key(scalar, CURVE)


def compressed(key: ec.EllipticCurvePublicKey) -> bytes:
    """33 bytes (SEC 1 section 2.3.3)."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def sign_digest(key: ec.EllipticCurvePrivateKey, digest: bytes) -> tuple[int, int]:
    """r and s, low, over 32 bytes that are hashed already."""
    if len(digest) != DIGEST:
        raise FormatError(f"signature: digest is {len(digest)} bytes, want {DIGEST}")
    r, s = decode_dss_signature(key.sign(digest, _SIGNING))
    return r, min(s, ORDER - s)


def sign_recoverable(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    """65 bytes over 32 bytes that are hashed already."""
    r, s = sign_digest(key, digest)
    numbers = key.public_key().public_numbers()
    inverse = pow(s, -1, ORDER)
    x, y = _sum(int.from_bytes(digest, "big") * inverse, r * inverse, (numbers.x, numbers.y))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([(x >= ORDER) << 1 | y & 1])


def recover(digest: bytes, signature: bytes) -> bytes:
    """The compressed public key whose holder made `signature` over `digest`; it says nothing of who that is.

    Raises FormatError for a signature out of shape (lengths, r, s or v out of range, s high), VerifyError when no
    key can have made it.
    """
    if len(digest) != DIGEST or len(signature) != SIZE:
        raise FormatError(f"signature: {len(signature)} bytes over {len(digest)}, want {SIZE} over {DIGEST}")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if not 0 < r < ORDER or not 0 < s <= ORDER // 2 or v > 3:
        raise FormatError("signature: r, s or v is out of range, or s is high")
    point = _lift(r + ORDER * (v >> 1), v & 1)
    if point is None:
        raise VerifyError("signature: no point of the curve has this r")
    inverse = pow(r, -1, ORDER)
    x, y = _sum(-int.from_bytes(digest, "big") * inverse, s * inverse, point)
    return bytes([2 | y & 1]) + x.to_bytes(32, "big")


def _lift(x: int, odd: int) -> _Affine | None:
    square = (x**3 + 7) % _P
    y = pow(square, (_P + 1) // 4, _P)
    if x >= _P or y * y % _P != square:
        return None
    return x, y if y & 1 == odd else _P - y


def _sum(a: int, b: int, point: _Affine) -> _Affine:
    """a * G + b * point, four bits of both factors at a time."""
    a, b, multiples = a % ORDER, b % ORDER, _multiples(point)
    total = (0, 1, 0)
    for shift in range(252, -4, -4):
        total = _double(_double(_double(_double(total))))
        for factor, table in ((a, _MULTIPLES_OF_G), (b, multiples)):
            if nibble := factor >> shift & 15:
                total = _add(total, table[nibble])
    if not total[2]:
        raise VerifyError("signature: it leads to the point at infinity")
    inverse = pow(total[2], -1, _P)
    return total[0] * inverse**2 % _P, total[1] * inverse**3 % _P


def _multiples(point: _Affine) -> list[_Point]:
    table = [(0, 1, 0), (*point, 1)]
    for _ in range(14):
        table.append(_add(table[-1], table[1]))
    return table


def _double(p: _Point) -> _Point:
    x, y, z = p
    if not z:
        return p
    yy = y * y % _P
    s = 4 * x * yy % _P
    m = 3 * x * x % _P
    out = (m * m - 2 * s) % _P
    return out, (m * (s - out) - 8 * yy * yy) % _P, 2 * y * z % _P


def _add(p: _Point, q: _Point) -> _Point:
    (x1, y1, z1), (x2, y2, z2) = p, q
    if not z1:
        return q
    if not z2:
        return p
    zz1, zz2 = z1 * z1 % _P, z2 * z2 % _P
    u, s = x1 * zz2 % _P, y1 * zz2 * z2 % _P
    h, r = (x2 * zz1 - u) % _P, (y2 * zz1 * z1 - s) % _P
    if not h:
        return (0, 1, 0) if r else _double(p)
    hh = h * h % _P
    hhh, v = h * hh % _P, u * hh % _P
    x = (r * r - hhh - 2 * v) % _P
    return x, (r * (v - x) - s * hhh) % _P, h * z1 * z2 % _P


_MULTIPLES_OF_G: Final = _multiples(_G)
