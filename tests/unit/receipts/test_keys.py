"""Mirrors strongroom/receipts/keys.py."""

from dataclasses import fields

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import FormatError
from strongroom.keys.recoverable import ORDER
from strongroom.receipts.keys import SECRET, DoorKeys
from strongroom.receipts.signing import ED25519_SPKI, HYBRID_SPKI

KEYS = DoorKeys.from_secret(bytes(range(32)))


def raw(keys: DoorKeys) -> dict[str, bytes]:
    scalar = keys.ethereum.private_numbers().private_value.to_bytes(32, "big")
    return {
        "receipt": keys.receipt.private_bytes_raw(),
        "hybrid": keys.hybrid.private_bytes_raw(),
        "ethereum": scalar,
        "salt": keys.salt,
        "hpke": keys.hpke,
        "log": keys.log,
    }


def test_one_secret_makes_one_door() -> None:
    assert raw(DoorKeys.from_secret(bytes(range(32)))) == raw(KEYS)
    others = raw(DoorKeys.from_secret(bytes(32)))
    assert not set(others.values()) & set(raw(KEYS).values())


def test_no_two_keys_are_one() -> None:
    assert set(raw(KEYS)) == {field.name for field in fields(DoorKeys)}
    assert len(set(raw(KEYS).values())) == len(raw(KEYS))


def test_a_key_is_what_hkdf_says() -> None:
    info = b"strongroom/door/v1\0receipt/ed25519"
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=info)
    assert KEYS.receipt.private_bytes_raw() == hkdf.derive(bytes(range(32)))


def test_the_scalar_is_one_of_the_curve() -> None:
    assert isinstance(KEYS.ethereum, EllipticCurvePrivateKey)
    assert 0 < KEYS.ethereum.private_numbers().private_value < ORDER


@pytest.mark.guarantee("G11")
def test_no_key_is_in_a_repr() -> None:
    assert repr(KEYS) == "DoorKeys()"
    assert all(secret.hex() not in repr(KEYS.signer(hybrid=True)) for secret in raw(KEYS).values())


@pytest.mark.parametrize("length", [0, SECRET - 1, SECRET + 1])
def test_a_secret_has_one_length(length: int) -> None:
    with pytest.raises(FormatError, match=f"{length} bytes, want 32"):
        DoorKeys.from_secret(bytes(length))


def test_who_signs() -> None:
    assert len(KEYS.signer(hybrid=False).key) == ED25519_SPKI
    assert len(KEYS.signer(hybrid=True).key) == HYBRID_SPKI
    assert KEYS.signer(hybrid=True).key.startswith(KEYS.signer(hybrid=False).key)
