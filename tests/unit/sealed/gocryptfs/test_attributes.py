"""Mirrors strongroom/sealed/gocryptfs/attributes.py."""

from base64 import urlsafe_b64encode

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.gocryptfs.attributes import AttributeCipher, is_clear
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from tests.fakes.gocryptfs import KINDS, MASTER_KEY, settings


def made(kind: str = "aes-gcm") -> AttributeCipher:
    return Ciphers.make(MASTER_KEY, settings(kind)).attributes


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sealed_comes_back(kind: str) -> None:
    attributes, nonce = made(kind), b"n" * (24 if kind == "xchacha" else 16)
    for target in (b"../model", b"t" * 4095):
        assert attributes.open_target(attributes.seal_target(target, nonce)) == target
    for name in (b"user.note", b"user." + b"n" * 250):
        assert attributes.open_name(attributes.seal_name(name)) == name
    for value in (b"", b"v", bytes(5000)):
        assert attributes.open_value(attributes.seal_value(value, nonce)) == value


def test_targets_are_clear_where_names_are() -> None:
    assert made("plaintext-names").seal_target(b"x", b"n" * 16) == b"x"
    assert made().seal_target(b"x", b"n" * 16) != b"x"


def test_values_of_older_volumes_are_base64() -> None:
    attributes = made()
    sealed = attributes.seal_value(b"value", b"n" * 16)
    assert attributes.open_value(urlsafe_b64encode(sealed).rstrip(b"=")) == b"value"


def test_acls_pass() -> None:
    attributes = made()
    for name in (b"system.posix_acl_access", b"system.posix_acl_default"):
        assert is_clear(name)
        assert attributes.seal_name(name) == attributes.open_name(name) == name
    assert not is_clear(b"user.note")


def test_every_change_is_found() -> None:
    attributes = made()
    target, value = (seal(b"content", b"n" * 16) for seal in (attributes.seal_target, attributes.seal_value))
    for good, look in ((target, attributes.open_target), (value, attributes.open_value)):
        for length in range(1, len(good)):
            with pytest.raises((FormatError, VerifyError)):
                look(good[:length])
        for position in range(len(good)):
            changed = bytearray(good)
            changed[position] ^= 1
            with pytest.raises((FormatError, VerifyError)):
                look(bytes(changed))


def test_what_cannot_be_sealed_is_refused() -> None:
    attributes = made()
    for target in (b"", b"a\0b", b"t" * 4096):
        with pytest.raises(FormatError, match=r"^link: "):
            attributes.seal_target(target, b"n" * 16)
    for name in (b"", b"a\0b"):
        with pytest.raises(FormatError, match=r"^attribute: "):
            attributes.seal_name(name)
    with pytest.raises(FormatError, match="does not start with"):
        attributes.open_name(b"user.note")
