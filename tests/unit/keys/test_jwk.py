"""Mirrors keys/jwk.py."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom.errors import FormatError
from strongroom.keys.jwk import curve_of, pack_jwk, pack_point, parse_jwk, parse_point
from strongroom.wire.canonical import b64u

P256 = ec.derive_private_key(7, ec.SECP256R1()).public_key()
P521 = ec.derive_private_key(7, ec.SECP521R1()).public_key()
RSA = rsa.generate_private_key(65537, 2048).public_key()
GOOD = pack_jwk(P256)


@pytest.mark.parametrize("key", [P256, P521, RSA], ids=["P-256", "P-521", "RSA"])
def test_round_trip(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> None:
    assert parse_jwk(pack_jwk(key), "tee-pubkey") == key


def test_coordinates_keep_their_width() -> None:
    short = ec.derive_private_key(0x53, ec.SECP521R1()).public_key()
    members = pack_point(short)
    assert len(members["x"]) == len(members["y"]) == 88  # 66 bytes
    assert parse_point({**members}, "epk") == short


def test_the_order_of_a_point_is_the_wire_order() -> None:
    assert list(pack_point(P256)) == ["crv", "kty", "x", "y"]


def test_another_curve_is_refused() -> None:
    with pytest.raises(FormatError, match="curve is secp384r1, want P-256 or P-521"):
        curve_of(ec.derive_private_key(7, ec.SECP384R1()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"alg": "ECDH-ES"}, "alg: got 'ECDH-ES', want"),
        ({"alg": None}, "alg: got None"),
        ({"crv": "P-384"}, "want EC on P-256 or P-521"),
        ({"kty": "OKP"}, "want EC on"),
        ({"kty": "x" * 100_000}, "kty 'x{79}, crv 'P-256', want EC on"),
        ({"x": "AA"}, "x: got 1 bytes, want 32"),
        ({"x": b64u(bytes(33))}, "x: got 33 bytes, want 32"),
        ({"x": 5}, "x: not text"),
        ({"y": "!"}, "y: not unpadded base64url"),
        ({"y": b64u(bytes(32))}, "the point is not on P-256"),
        ({"x": b64u(b"\xff" * 32)}, "the point is not on P-256"),
        ({"d": "AA"}, "want exactly"),
        ({"kid": "k"}, "want exactly"),
    ],
)
def test_a_bad_curve_key_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse_jwk({**GOOD, **change}, "tee-pubkey")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"alg": "RSA1_5"}, "alg: got 'RSA1_5', want RSA-OAEP-256"),
        ({"e": b64u(b"\x03")}, "want 2048..4096 with exponent 65537"),
        ({"n": b64u(b"\xff" * 128)}, "rsa of 1024 bits"),
        ({"n": b64u(b"\x00" + b"\xff" * 256)}, "leading zero octet"),
        ({"n": b64u(b"\xff" * 513)}, "got 513 bytes"),
        ({"n": ""}, "got 0 bytes"),
        ({"d": "AA"}, "want exactly"),
    ],
)
def test_a_bad_rsa_key_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        parse_jwk({**pack_jwk(RSA), **change}, "tee-pubkey")


@pytest.mark.parametrize("value", [None, [], "text", 7, {}, {"kty": "EC"}])
def test_what_is_no_key_is_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="tee-pubkey"):
        parse_jwk(value, "tee-pubkey")


@pytest.mark.parametrize("member", sorted(GOOD))
def test_every_member_is_needed(member: str) -> None:
    with pytest.raises(FormatError):
        parse_jwk({name: value for name, value in GOOD.items() if name != member}, "tee-pubkey")
