"""Mirrors strongroom/sealed/gocryptfs/config.py and kdf.py."""

import json
from typing import Any

import pytest

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.sealed.gocryptfs.config import (
    DEFAULT_FLAGS,
    MAX_CONFIG,
    Cipher,
    Flag,
    Settings,
    check_flags,
    make,
    unlock,
)
from strongroom.sealed.gocryptfs.kdf import Scrypt
from tests.fakes.gocryptfs import KINDS, MASTER_KEY, PASSWORD, settings

# Written by gocryptfs 2.3 under the password "secret".
THEIRS = b"""{
	"Creator": "gocryptfs 2.3",
	"EncryptedKey": "KjIwOR5bM7df8DF6Up29ynak5csfLyEAiFYCHIq6+vEsPQCqXx9iX+IOkOfkCsBsDR+YUGRH/CYmj329XwlcUg==",
	"ScryptObject": {
		"Salt": "fOoMN8XN3y0ncNi9McbkvF/hXAhyzM5x2/ehcVKi9n8=",
		"N": 1024,
		"R": 8,
		"P": 1,
		"KeyLen": 32
	},
	"Version": 2,
	"FeatureFlags": [
		"HKDF",
		"GCMIV128",
		"DirIV",
		"EMENames",
		"LongNames",
		"Raw64"
	]
}
"""


def test_a_file_of_gocryptfs_opens() -> None:
    found = Settings.parse(THEIRS)
    assert found.flags == DEFAULT_FLAGS
    assert found.creator == "gocryptfs 2.3"
    assert found.cipher is Cipher.AES_GCM
    assert len(unlock(found, b"secret")) == 32
    with pytest.raises(VerifyError, match="password does not open the master key"):
        unlock(found, b"secret ")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_comes_back(kind: str) -> None:
    made = settings(kind)
    assert Settings.parse(made.pack()) == made
    assert unlock(made, PASSWORD) == MASTER_KEY
    with pytest.raises(VerifyError):
        unlock(made, b"another")


def test_the_key_is_not_shown() -> None:
    made = settings()
    assert made.encrypted_key.hex() not in repr(made)
    assert "encrypted_key" not in repr(made)


def test_every_cut_is_refused() -> None:
    packed = settings("long-name-max").pack().rstrip()
    for length in range(len(packed)):
        with pytest.raises(FormatError):
            Settings.parse(packed[:length])


def test_no_flipped_bit_passes_unseen() -> None:
    """Some other settings may come out of it, but then they do not open the key, or are plainly other settings."""
    packed, made, opened = settings().pack(), settings(), 0
    for position in range(len(packed) - 1):
        changed = bytearray(packed)
        changed[position] ^= 1 << position % 8
        try:
            found = Settings.parse(bytes(changed))
        except FormatError:
            continue
        opened += 1
        if found.scrypt != made.scrypt or found.encrypted_key != made.encrypted_key:
            with pytest.raises(StrongroomError):
                unlock(found, PASSWORD)
        elif found == made:  # white space
            assert json.loads(changed) == json.loads(packed)
    assert opened > 0


def changed(**members: Any) -> bytes:
    raw = json.loads(settings().pack())
    scrypt = members.pop("scrypt", {})
    raw["ScryptObject"] |= scrypt
    raw |= members
    return json.dumps({key: value for key, value in raw.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (changed(Version=1), "Version is 1, want 2"),
        (changed(Version=True), "Version is bool, want int"),
        (changed(Creator=...), "Creator is missing"),
        (changed(EncryptedKey="AAAA"), "EncryptedKey is 3 bytes, want 64"),
        (changed(EncryptedKey="?"), "EncryptedKey: not padded base64"),
        (changed(FeatureFlags=["Raw64", "Raw64"]), "a feature flag is there twice"),
        (changed(FeatureFlags=["Quantum"]), "feature flag 'Quantum' is not known"),
        (changed(FeatureFlags=[7]), "feature flag '7' is not known"),
        (changed(Extra=1), "unknown member 'Extra'"),
        (changed(LongNameMax=100), "LongNameMax is 100 without its flag"),
        (changed(FIDO2={"CredentialID": ""}), "FIDO2 needs both its flag and its value"),
        (changed(scrypt={"N": 1000}), "N is 1000, want a power of two"),
        (changed(scrypt={"N": 512}), "N is 512"),
        (changed(scrypt={"R": 7}), "R is 7, want at least 8"),
        (changed(scrypt={"P": 0}), r"P is 0, want 1\.\.16"),
        (changed(scrypt={"P": 17}), "P is 17"),
        (changed(scrypt={"KeyLen": 16}), "KeyLen is 16, want 32"),
        (changed(scrypt={"Salt": "AAAA"}), "salt is 3 bytes, want 32"),
        (changed(scrypt={"More": 1}), "unknown member 'More' of ScryptObject"),
        (changed(scrypt={"N": 1 << 28}), "scrypt takes 274877906944 bytes, want at most 1073741824"),
        (b" " * (MAX_CONFIG + 1), "65537 bytes, want at most 65536"),
        (b"[]", "is list, want dict"),
    ],
)
def test_what_no_gocryptfs_writes_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        Settings.parse(data)


@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        (DEFAULT_FLAGS - {Flag.GCM_IV_128}, 255),
        (DEFAULT_FLAGS | {Flag.XCHACHA}, 255),
        (DEFAULT_FLAGS - {Flag.GCM_IV_128, Flag.HKDF} | {Flag.XCHACHA}, 255),
        (DEFAULT_FLAGS - {Flag.GCM_IV_128} | {Flag.XCHACHA, Flag.AES_SIV}, 255),
        (DEFAULT_FLAGS | {Flag.PLAINTEXT_NAMES}, 255),
        (DEFAULT_FLAGS - {Flag.EME_NAMES}, 255),
        (DEFAULT_FLAGS | {Flag.LONG_NAME_MAX}, 61),
        (DEFAULT_FLAGS | {Flag.LONG_NAME_MAX}, 256),
        (DEFAULT_FLAGS - {Flag.LONG_NAMES} | {Flag.LONG_NAME_MAX}, 100),
    ],
)
def test_flags_have_to_agree(flags: frozenset[Flag], limit: int) -> None:
    with pytest.raises(FormatError, match=r"^gocryptfs\.conf: "):
        check_flags(flags, limit)


def test_what_cannot_be_made_is_refused() -> None:
    scrypt = Scrypt(salt=bytes(32), n=1024)
    with pytest.raises(FormatError, match="master key: got 31 bytes, want 32"):
        make(master_key=bytes(31), password=b"p", scrypt=scrypt, nonce=bytes(16))
    with pytest.raises(FormatError, match="nonce is 12 bytes, want 16"):
        make(master_key=bytes(32), password=b"p", scrypt=scrypt, nonce=bytes(12))
