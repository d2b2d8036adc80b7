"""Mirrors strongroom/sealed/gocryptfs/keys.py."""

import hmac
from hashlib import sha256, sha512

import pytest

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.keys import SubKeys
from tests.fakes.gocryptfs import KINDS, MASTER_KEY, settings


def hkdf(label: bytes, length: int) -> bytes:
    """RFC 5869 by hand."""
    prk, out, block = hmac.digest(bytes(32), MASTER_KEY, sha256), b"", b""
    while len(out) < length:
        block = hmac.digest(prk, block + label + bytes([len(out) // 32 + 1]), sha256)
        out += block
    return out[:length]


@pytest.mark.parametrize(
    ("kind", "label", "length"),
    [
        ("aes-gcm", b"AES-GCM file content encryption", 32),
        ("aes-siv", b"AES-SIV file content encryption", 64),
        ("xchacha", b"XChaCha20-Poly1305 file content encryption", 32),
    ],
)
def test_each_purpose_has_its_own_key(kind: str, label: bytes, length: int) -> None:
    keys = SubKeys.derive(MASTER_KEY, settings(kind))
    assert keys.names == hkdf(b"EME filename encryption", 32)
    assert keys.content == hkdf(label, length)


def test_older_volumes_share_the_master_key() -> None:
    assert SubKeys.derive(MASTER_KEY, settings("without-hkdf")) == SubKeys(MASTER_KEY, MASTER_KEY)
    assert SubKeys.derive(MASTER_KEY, settings("without-hkdf-siv")).content == sha512(MASTER_KEY).digest()


def test_keys_are_not_shown() -> None:
    assert "names" not in repr(SubKeys.derive(MASTER_KEY, settings()))


@pytest.mark.parametrize("kind", KINDS)
def test_another_length_is_refused(kind: str) -> None:
    for length in (0, 31, 33):
        with pytest.raises(FormatError, match=f"got {length} bytes, want 32"):
            SubKeys.derive(bytes(length), settings(kind))
