"""Mirrors keys/jwe.py. The vector was made once and checked with two other libraries (jwcrypto, joserfc)."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.jwe import JWE, key_encryption_key, open_sealed, seal
from strongroom.wire.canonical import b64u, unb64u

PLAINTEXT = b"hello model key"
CEK, IV = bytes(range(32, 64)), bytes(range(12))
RECIPIENT = ec.derive_private_key(int.from_bytes(sha256(b"tee key").digest(), "big"), ec.SECP256R1())
EPHEMERAL = ec.derive_private_key(int.from_bytes(sha256(b"epk").digest(), "big"), ec.SECP256R1())
VECTOR = {
    "protected": "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIs"
    "IngiOiJLNjh5dU9HdFd5bmdjWVU0TzFGSUUzS0lsVnJwX3NqQWU4RnpYMVNIWVk0IiwieSI6IkVhNXdfQWNNSEtiSmdaejJCTlRQMVhwNjIyRkJ1"
    "YmxXZkkzcFRySFZ5SHcifX0",
    "encrypted_key": "nXsKCo8rzhaWs3Zrf08s9-c6DpswS1VhLb57JLncvPYXK_04tsPRUQ",
    "iv": "AAECAwQFBgcICQoL",
    "ciphertext": "NDcxyyUVhoPYnKXmTRYn",
    "tag": "Yrd4FJdyYygR3UirvTjLrw",
}
RSA = rsa.generate_private_key(65537, 2048)


def sealed() -> JWE:
    return seal(PLAINTEXT, RECIPIENT.public_key(), ephemeral=EPHEMERAL, cek=CEK, iv=IV)


def test_seals_to_the_vector() -> None:
    assert sealed().to_json() == VECTOR


def test_opens_the_vector() -> None:
    assert open_sealed(JWE.from_json({**VECTOR}), RECIPIENT) == PLAINTEXT


def test_both_ends_agree_on_the_vector_s_key() -> None:
    want = "64ea0fd3efc8c84c26789b822a226913f7b429d7b5e2a4272ddbece1199d062d"
    assert key_encryption_key(EPHEMERAL, RECIPIENT.public_key()).hex() == want
    assert key_encryption_key(RECIPIENT, EPHEMERAL.public_key()).hex() == want


def test_p521_round_trip() -> None:
    recipient, ephemeral = (ec.derive_private_key(n, ec.SECP521R1()) for n in (11, 12))
    jwe = seal(PLAINTEXT, recipient.public_key(), ephemeral=ephemeral, cek=CEK, iv=IV)
    assert open_sealed(JWE.from_json({**jwe.to_json()}), recipient) == PLAINTEXT


def test_rsa_round_trip() -> None:
    jwe = seal(PLAINTEXT, RSA.public_key(), ephemeral=None, cek=CEK, iv=IV)
    assert unb64u(jwe.protected, "header") == b'{"alg":"RSA-OAEP-256","enc":"A256GCM"}'
    assert open_sealed(jwe, RSA) == PLAINTEXT


def test_an_empty_plaintext_is_a_plaintext() -> None:
    jwe = seal(b"", RECIPIENT.public_key(), ephemeral=EPHEMERAL, cek=CEK, iv=IV)
    assert open_sealed(jwe, RECIPIENT) == b""


def with_part(jwe: JWE, part: str, value: bytes) -> JWE:
    return JWE.from_json(jwe.to_json() | {part: b64u(value)})


def flipped(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8 if n == bit // 8 else 0) for n, byte in enumerate(data))


@pytest.mark.parametrize("part", ["encrypted_key", "iv", "ciphertext", "tag"])
def test_every_bit_of_every_part_counts(part: str) -> None:
    jwe = sealed()
    good: bytes = getattr(jwe, part)
    for bit in range(8 * len(good)):
        with pytest.raises(VerifyError):
            open_sealed(with_part(jwe, part, flipped(good, bit)), RECIPIENT)


def test_every_bit_of_the_header_counts() -> None:
    jwe = sealed()
    header = unb64u(jwe.protected, "header")
    for bit in range(8 * len(header)):
        with pytest.raises(StrongroomError):
            open_sealed(replace(jwe, protected=b64u(flipped(header, bit))), RECIPIENT)


def test_the_header_is_authenticated_as_received_not_as_understood() -> None:
    jwe = sealed()
    spaced = unb64u(jwe.protected, "header").replace(b",", b", ", 1)
    with pytest.raises(VerifyError, match="tag does not match"):
        open_sealed(replace(jwe, protected=b64u(spaced)), RECIPIENT)


@pytest.mark.parametrize("part", ["encrypted_key", "ciphertext"])
def test_every_cut_is_refused(part: str) -> None:
    jwe = sealed()
    good: bytes = getattr(jwe, part)
    for n in range(len(good)):
        with pytest.raises(VerifyError):
            open_sealed(with_part(jwe, part, good[:n]), RECIPIENT)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(VerifyError, match="does not unwrap under our key"):
        open_sealed(sealed(), EPHEMERAL)


def test_another_rsa_key_does_not_open_it() -> None:
    jwe = seal(PLAINTEXT, RSA.public_key(), ephemeral=None, cek=CEK, iv=IV)
    with pytest.raises(VerifyError):
        open_sealed(jwe, rsa.generate_private_key(65537, 2048))


def header(**change: Any) -> str:
    members = json.loads(unb64u(VECTOR["protected"], "header"))
    members.update(change)
    return b64u(
        json.dumps({k: v for k, v in members.items() if v != "absent"}, separators=(",", ":")).encode()
    )


EPK = {"crv": "P-256", "kty": "EC", "x": b64u(bytes(31) + b"\x05"), "y": b64u(bytes(31) + b"\x07")}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"alg": "RSA-OAEP-256"}, "alg and enc are"),
        ({"alg": "ECDH-ES"}, "alg and enc are"),
        ({"alg": "dir"}, "alg and enc are"),
        ({"enc": "A128GCM"}, "alg and enc are"),
        ({"enc": "absent"}, "alg and enc are"),
        ({"zip": "DEF"}, "members are"),
        ({"apu": "AA"}, "members are"),
        ({"epk": "absent"}, "members are"),
        ({"epk": EPK}, "not on P-256"),
        ({"epk": {**EPK, "crv": "P-521"}}, "got 32 bytes, want 66"),
        ({"epk": {**EPK, "d": "AA"}}, "want exactly"),
        ({"epk": "text"}, "jwe.epk"),
    ],
)
def test_a_header_for_something_else_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        open_sealed(replace(sealed(), protected=header(**change)), RECIPIENT)


def test_an_ephemeral_key_on_our_other_curve_is_refused() -> None:
    other = ec.derive_private_key(5, ec.SECP521R1())
    jwe = seal(PLAINTEXT, other.public_key(), ephemeral=other, cek=CEK, iv=IV)
    with pytest.raises(FormatError, match="crv: got P-521, want P-256"):
        open_sealed(jwe, RECIPIENT)


@pytest.mark.parametrize(
    "change",
    [
        {"tag": "AA"},
        {"iv": "AA"},
        {"tag": 5},
        {"protected": None},
        {"aad": "AA"},
        {"header": {}},
        {"protected": "A" * 5000},
        {"ciphertext": "not base64!"},
        {"ciphertext": "AB"},  # stray bits
    ],
)
def test_an_envelope_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="jwe"):
        JWE.from_json({**VECTOR, **change})


@pytest.mark.parametrize("part", sorted(VECTOR))
def test_every_part_is_needed(part: str) -> None:
    with pytest.raises(FormatError):
        JWE.from_json({name: value for name, value in VECTOR.items() if name != part})


@pytest.mark.parametrize("value", [None, [], "jwe", 1, True])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        JWE.from_json(value)


def test_a_header_that_is_no_json_object_is_refused() -> None:
    for text in (b"", b"[]", b"{", b'{"alg":1,"alg":1}', b"\xff"):
        with pytest.raises(FormatError):
            open_sealed(replace(sealed(), protected=b64u(text)), RECIPIENT)


def test_our_own_mistakes_are_not_the_peer_s() -> None:
    with pytest.raises(ValueError, match="cek is 16 bytes"):
        seal(b"", RECIPIENT.public_key(), ephemeral=EPHEMERAL, cek=bytes(16), iv=IV)
    with pytest.raises(ValueError, match="not on the recipient's curve"):
        seal(b"", RECIPIENT.public_key(), ephemeral=None, cek=CEK, iv=IV)
    with pytest.raises(ValueError, match="not on the recipient's curve"):
        seal(
            b"",
            RECIPIENT.public_key(),
            ephemeral=ec.derive_private_key(5, ec.SECP521R1()),
            cek=CEK,
            iv=IV,
        )


@pytest.mark.guarantee("G11")
def test_no_key_is_in_an_error() -> None:
    jwe = replace(sealed(), tag=bytes(16))
    with pytest.raises(VerifyError) as caught:
        open_sealed(jwe, RECIPIENT)
    shown = f"{caught.value!r} {jwe!r} {caught.value.__cause__!r}"
    assert CEK.hex() not in shown and PLAINTEXT.decode() not in shown
