"""Mirrors strongroom/sealed/keys.py."""

import hmac

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.keys import VolumeKeys

KEY, SALT = bytes(range(32)), b"salt" * 8


def expand(info: bytes) -> bytes:
    """HKDF for one block, by RFC 5869."""
    prk = hmac.digest(SALT, KEY, "sha256")
    return hmac.digest(prk, b"strongroom/sealed/v2/" + info + b"\x01", "sha256")


def test_keys_are_hkdf_with_these_labels() -> None:
    keys = VolumeKeys(model_key=KEY, salt=SALT)
    assert keys.commitment == expand(b"commitment")
    assert keys.manifest_key == expand(b"manifest")
    assert keys.journal_key == expand(b"journal")
    assert len({keys.commitment, keys.manifest_key, keys.journal_key}) == 3


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_model_key_has_32_bytes(length: int) -> None:
    with pytest.raises(FormatError, match=f"model key: got {length} bytes, want 32"):
        VolumeKeys(model_key=bytes(length), salt=SALT)


def test_another_key_does_not_meet_the_commitment() -> None:
    commitment = VolumeKeys(model_key=KEY, salt=SALT).commitment
    VolumeKeys(model_key=bytearray(KEY), salt=SALT).check_commitment(commitment, "manifest")
    with pytest.raises(VerifyError, match=r"^journal: key commitment does not match"):
        VolumeKeys(model_key=bytes(32), salt=SALT).check_commitment(commitment, "journal")


@pytest.mark.guarantee("G11")
def test_no_key_in_repr() -> None:
    assert KEY.hex() not in repr(VolumeKeys(model_key=KEY, salt=SALT))
    assert not hasattr(VolumeKeys(model_key=KEY, salt=SALT), "__dict__")
