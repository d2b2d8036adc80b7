"""Mirrors strongroom/keys/signing.py."""

from hashlib import sha256

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.recoverable import ORDER
from strongroom.keys.signing import Algorithm, load, public_bytes, sign, verify

SECRET = sha256(b"a secret").digest()
DATA = sha256(b"data").digest()
ALL = [*Algorithm]


def made(algorithm: Algorithm) -> tuple[bytes, bytes]:
    key = load(SECRET, algorithm)
    return sign(key, algorithm, DATA), public_bytes(key)


@pytest.mark.parametrize("algorithm", ALL)
def test_what_is_signed_verifies(algorithm: Algorithm) -> None:
    signature, public = made(algorithm)
    assert (len(signature), len(public)) == (64, 32 if algorithm is Algorithm.ED25519 else 33)
    verify(algorithm, DATA, signature, public)


@pytest.mark.parametrize("algorithm", ALL)
def test_every_flipped_bit_is_refused(algorithm: Algorithm) -> None:
    signature, public = made(algorithm)
    for at in range(0, 512, 7):
        data = bytearray(signature)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises((VerifyError, FormatError)):
            verify(algorithm, DATA, bytes(data), public)
    with pytest.raises(VerifyError):
        verify(algorithm, DATA[:-1] + b"\0", signature, public)


@pytest.mark.parametrize("algorithm", ALL)
def test_every_cut_is_refused(algorithm: Algorithm) -> None:
    signature, public = made(algorithm)
    for n in range(64):
        with pytest.raises(FormatError):
            verify(algorithm, DATA, signature[:n], public)
    for n in range(len(public)):
        with pytest.raises(FormatError):
            verify(algorithm, DATA, signature, public[:n])


def test_the_high_twin_is_well_formed_and_never_valid() -> None:
    signature, public = made(Algorithm.SECP256K1)
    twin = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    with pytest.raises(VerifyError, match="high"):
        verify(Algorithm.SECP256K1, DATA, twin, public)


@pytest.mark.parametrize("number", [0, ORDER, 2**256 - 1])
def test_numbers_out_of_range_are_malformed(number: int) -> None:
    signature, public = made(Algorithm.SECP256K1)
    raw = number.to_bytes(32, "big")
    for bad in (raw + signature[32:], signature[:32] + raw):
        with pytest.raises(FormatError, match="out of range"):
            verify(Algorithm.SECP256K1, DATA, bad, public)


def test_an_uncompressed_key_verifies_too() -> None:
    signature, public = made(Algorithm.SECP256K1)
    key = load(SECRET, Algorithm.SECP256K1).public_key()
    point = key.public_numbers()  # type: ignore[union-attr]
    long = b"\4" + point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
    verify(Algorithm.SECP256K1, DATA, signature, long)
    with pytest.raises(FormatError):
        verify(Algorithm.SECP256K1, DATA, signature, long[:-1] + bytes([long[-1] ^ 1]))
    assert public[1:] == long[1:33]


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_prehashed_message_is_32_bytes(size: int) -> None:
    key = load(SECRET, Algorithm.SECP256K1)
    with pytest.raises(FormatError, match=f"32-byte digest, but received {size} bytes"):
        sign(key, Algorithm.SECP256K1_PREHASHED, bytes(size))


def test_prehashed_is_the_same_over_the_hash() -> None:
    key = load(SECRET, Algorithm.SECP256K1)
    want = sign(key, Algorithm.SECP256K1, DATA)
    assert sign(key, Algorithm.SECP256K1_PREHASHED, sha256(DATA).digest()) == want


def test_names_of_keys() -> None:
    assert {Algorithm.of_key(name) for name in ("", "k256", "secp256k1")} == {Algorithm.SECP256K1}
    assert Algorithm.of_key("ed25519") is Algorithm.ED25519
    for name in ("secp256k1_prehashed", "rsa", "K256", "ED25519"):
        with pytest.raises(FormatError, match="unsupported algorithm"):
            Algorithm.of_key(name)


def test_names_of_ways_to_sign() -> None:
    assert Algorithm.of_signature("k256") is Algorithm.SECP256K1
    assert [Algorithm.of_signature(name) for name in Algorithm] == ALL
    for name in ("", "rsa"):
        with pytest.raises(FormatError, match="unsupported algorithm"):
            Algorithm.of_signature(name)
    assert {way.key for way in ALL} == {Algorithm.SECP256K1, Algorithm.ED25519}
