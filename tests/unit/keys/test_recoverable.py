"""Mirrors strongroom/keys/recoverable.py. Second opinions: OpenSSL's verification, and eth-keys."""

import random
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.recoverable import (
    CURVE,
    ORDER,
    Secp256k1PrivateKey,
    compressed,
    private_key,
    recover,
    sign_recoverable,
)

KEY = private_key(sha256(b"a key").digest())
DIGEST = sha256(b"a message").digest()
SIGNATURE = sign_recoverable(KEY, DIGEST)


def scalar(n: int) -> bytes:
    return n.to_bytes(32, "big")


def test_what_is_signed_names_its_signer() -> None:
    source = random.Random(2)
    for _ in range(40):
        key, digest = private_key(source.randbytes(32)), source.randbytes(32)
        signature = sign_recoverable(key, digest)
        assert recover(digest, signature) == compressed(key.public_key())
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        assert s <= ORDER // 2
        key.public_key().verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))


@pytest.mark.filterwarnings("ignore")
def test_another_library_agrees() -> None:
    theirs = pytest.importorskip("eth_keys").keys
    source = random.Random(3)
    for _ in range(10):
        secret, digest = source.randbytes(32), source.randbytes(32)
        signature = sign_recoverable(private_key(secret), digest)
        assert theirs.PrivateKey(secret).sign_msg_hash(digest).to_bytes() == signature
        public = theirs.Signature(signature).recover_public_key_from_msg_hash(digest)
        assert public.to_compressed_bytes() == recover(digest, signature)


@pytest.mark.guarantee("G11")
def test_both_forms_of_a_key_are_one_key() -> None:
    source = random.Random(4)
    for _ in range(10):
        secret, digest = source.randbytes(32), source.randbytes(32)
        ours, theirs = Secp256k1PrivateKey(secret), private_key(secret)
        assert ours.public == compressed(theirs.public_key())
        assert ours.public_key().public_numbers() == theirs.public_key().public_numbers()
        assert ours.sign(digest) == sign_recoverable(theirs, digest) == sign_recoverable(ours, digest)
        assert secret.hex() not in repr(ours) and str(secret) not in repr(ours)


def test_the_nonce_is_that_of_rfc_6979() -> None:
    # OpenSSL computes it by itself; it does not make s low
    source = random.Random(5)
    signing = ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True)
    for _ in range(40):
        secret, digest = source.randbytes(32), source.randbytes(32)
        r, s = decode_dss_signature(private_key(secret).sign(digest, signing))
        assert Secp256k1PrivateKey(secret).sign(digest)[:64] == scalar(r) + scalar(min(s, ORDER - s))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_only_a_digest_is_signed(size: int) -> None:
    with pytest.raises(FormatError, match=f"digest is {size} bytes, want 32"):
        Secp256k1PrivateKey(scalar(1)).sign(bytes(size))


@pytest.mark.parametrize("secret", [1, 2, ORDER - 1])
def test_the_least_and_the_greatest_scalar(secret: int) -> None:
    key = private_key(scalar(secret))
    assert recover(DIGEST, sign_recoverable(key, DIGEST)) == compressed(key.public_key())


@pytest.mark.parametrize("secret", [bytes(32), scalar(ORDER), bytes([255]) * 32, b"", bytes(31), bytes(33)])
def test_no_scalar_is_refused(secret: bytes) -> None:
    for made in (private_key, Secp256k1PrivateKey):
        with pytest.raises(FormatError, match="not a scalar"):
            made(secret)


def test_every_cut_is_refused() -> None:
    for n in range(len(SIGNATURE)):
        with pytest.raises(FormatError):
            recover(DIGEST, SIGNATURE[:n])
    with pytest.raises(FormatError):
        recover(DIGEST, SIGNATURE + b"\0")
    with pytest.raises(FormatError):
        recover(DIGEST[:31], SIGNATURE)


def test_every_flipped_bit_names_another_signer_or_none() -> None:
    signer = compressed(KEY.public_key())
    for at in range(0, 8 * len(SIGNATURE), 3):
        data = bytearray(SIGNATURE)
        data[at // 8] ^= 1 << at % 8
        try:
            assert recover(DIGEST, bytes(data)) != signer
        except StrongroomError as error:
            assert isinstance(error, FormatError | VerifyError)  # noqa: PT017


def test_the_high_twin_is_refused() -> None:
    s = int.from_bytes(SIGNATURE[32:64], "big")
    twin = SIGNATURE[:32] + scalar(ORDER - s) + bytes([SIGNATURE[64] ^ 1])
    with pytest.raises(FormatError, match="s is high"):
        recover(DIGEST, twin)


@pytest.mark.parametrize(
    ("r", "s", "v"), [(0, 1, 0), (ORDER, 1, 0), (1, 0, 0), (1, ORDER, 0), (1, 1, 4), (1, 1, 27)]
)
def test_numbers_out_of_range_are_refused(r: int, s: int, v: int) -> None:
    with pytest.raises(FormatError, match="out of range"):
        recover(DIGEST, scalar(r) + scalar(s) + bytes([v]))


def test_a_point_that_is_none_is_refused() -> None:
    with pytest.raises(VerifyError, match="no key can have made it"):
        recover(DIGEST, scalar(5) + scalar(1) + b"\0")
    with pytest.raises(VerifyError, match="no key can have made it"):
        recover(DIGEST, scalar(ORDER - 1) + scalar(1) + b"\2")  # r + n is beyond the field


def test_an_r_beyond_the_order_is_recovered() -> None:
    # x of the point lies between the order and the field: one in 2^127 signatures, so made backwards
    x = next(
        x
        for x in range(ORDER + 1, ORDER + 50)
        if pow(pow(x, 3) + 7, (2**256 - 2**32 - 978) // 2, 2**256 - 2**32 - 977) == 1
    )
    signature = scalar(x - ORDER) + scalar(7) + b"\2"
    public = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, recover(DIGEST, signature))
    public.verify(encode_dss_signature(x - ORDER, 7), DIGEST, ec.ECDSA(Prehashed(SHA256())))


def test_the_point_at_infinity_is_refused() -> None:
    # with R = G and s = z the key would be (s R - z G) / r, which is no point
    g = compressed(private_key(scalar(1)).public_key())
    z = 12345
    with pytest.raises(VerifyError, match="no key can have made it"):
        recover(scalar(z), g[1:] + scalar(z) + bytes([g[0] & 1]))
