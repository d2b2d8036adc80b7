"""Mirrors strongroom/keys/tappd.py."""

import hashlib

import pytest

from strongroom.errors import FormatError
from strongroom.keys.keccak import keccak256, keccak384
from strongroom.keys.tappd import report_data


def test_the_default_is_sha512_of_application_data() -> None:
    want = hashlib.sha512(b"app-data:hello").digest()
    assert report_data(b"hello") == report_data(b"hello", hash="", prefix="") == want


def test_shorter_hashes_are_padded_on_the_right() -> None:
    assert report_data(b"x", hash="sha256", prefix="p") == hashlib.sha256(b"p:x").digest() + bytes(32)
    assert report_data(b"x", hash="sha3-384") == hashlib.sha3_384(b"app-data:x").digest() + bytes(16)
    assert report_data(b"x", hash="keccak256") == keccak256(b"app-data:x") + bytes(32)
    assert report_data(b"x", hash="keccak384") == keccak384(b"app-data:x") + bytes(16)


def test_raw_is_what_the_caller_gives() -> None:
    assert report_data(b"x", hash="raw") == b"x" + bytes(63)
    assert report_data(bytes([7]) * 64, hash="raw") == bytes([7]) * 64
    with pytest.raises(FormatError, match="too long: 65 bytes"):
        report_data(bytes(65), hash="raw")


@pytest.mark.parametrize("name", ["sha1", "SHA512", "sha3_256", "md5"])
def test_another_hash_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"^hash: "):
        report_data(b"x", hash=name)
