"""Mirrors strongroom/sealed/gocryptfs/names.py."""

from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.keys import SubKeys
from strongroom.sealed.gocryptfs.names import NameCipher, check_diriv, decode, encode
from tests.fakes.gocryptfs import KINDS, MASTER_KEY, settings

DIRIV = bytes(range(16))
NAME = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)


def cipher(kind: str = "aes-gcm") -> NameCipher:
    made = settings(kind)
    return NameCipher(SubKeys.derive(MASTER_KEY, made).names, made)


@given(NAME, st.sampled_from(sorted(KINDS)))
def test_names_come_back(name: bytes, kind: str) -> None:
    names = cipher(kind)
    try:
        stored = names.store(name, DIRIV)
    except FormatError:
        assert kind == "without-long-names"
        assert len(name) > 175
        return
    assert names.open(stored.on_disk, DIRIV, stored.long) == name
    assert names.is_long(stored.on_disk) is (stored.long is not None)
    assert len(stored.on_disk) <= KINDS[kind][2]
    if kind != "plaintext-names":
        assert not names.is_foreign(stored.on_disk)


def test_the_limit_of_a_name_on_disk() -> None:
    names = cipher()
    assert names.store(b"n" * 175, DIRIV).long is None
    stored = names.store(b"n" * 176, DIRIV)
    assert stored.long is not None
    assert stored.on_disk == b"gocryptfs.longname." + urlsafe_b64encode(sha256(stored.long).digest()).rstrip(
        b"="
    )
    assert len(names.store(b"n" * 255, DIRIV).long or b"") == 342
    assert cipher("long-name-max").store(b"n" * 63, DIRIV).long is None
    assert cipher("long-name-max").store(b"n" * 64, DIRIV).long is not None


def test_base64_as_older_versions_wrote_it() -> None:
    padded, bare = cipher("padded-base64").store(b"name", DIRIV), cipher().store(b"name", DIRIV)
    assert padded.on_disk == bare.on_disk + b"=="
    with pytest.raises(FormatError):
        cipher().open(padded.on_disk, DIRIV)
    with pytest.raises(FormatError):
        cipher("padded-base64").open(bare.on_disk, DIRIV)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"n" * 256])
@pytest.mark.parametrize("kind", ["aes-gcm", "plaintext-names"])
def test_what_is_no_name_is_refused(name: bytes, kind: str) -> None:
    names = cipher(kind)
    with pytest.raises(FormatError, match=r"^name: "):
        names.store(name, DIRIV)
    if kind == "plaintext-names":
        with pytest.raises(FormatError, match=r"^name: "):
            names.open(name, DIRIV)


@pytest.mark.parametrize("hidden", [b".", b"..", b"a/b", b"a\0b"])
def test_what_is_no_name_when_deciphered_is_refused(hidden: bytes) -> None:
    names = cipher()
    with pytest.raises(FormatError, match="is not a name"):
        names.open(names.encipher(hidden, DIRIV), DIRIV)


def test_changed_names_are_noise() -> None:
    """There is no tag: what saves a reader is the padding, and it fails for one in a few hundred."""
    names, passed = cipher(), 0
    on_disk = names.store(b"model.safetensors", DIRIV).on_disk
    for length in range(len(on_disk)):
        with pytest.raises(FormatError):
            names.open(on_disk[:length], DIRIV)
    for position in range(len(on_disk)):
        for bit in range(8):
            changed = bytearray(on_disk)
            changed[position] ^= 1 << bit
            try:
                assert names.open(bytes(changed), DIRIV) != b"model.safetensors"
                passed += 1
            except FormatError:
                pass
    assert passed < 8


def test_long_names_are_bound_to_their_hash() -> None:
    names = cipher()
    one, other = names.store(b"a" * 200, DIRIV), names.store(b"b" * 200, DIRIV)
    for on_disk, long in (
        (one.on_disk, other.long),
        (one.on_disk, None),
        (one.on_disk, b""),
        (one.on_disk, (one.long or b"") + b"\n"),
        (names.store(b"short", DIRIV).on_disk, one.long),
        (one.long or b"", None),
    ):
        with pytest.raises(FormatError):
            names.open(on_disk, DIRIV, long)


def test_what_is_not_of_the_volume() -> None:
    names, plain = cipher(), cipher("plaintext-names")
    for foreign in (b"gocryptfs.conf", b"gocryptfs.diriv", b".nfs0001", b"gocryptfs.longname.abc.name"):
        assert names.is_foreign(foreign)
    assert not names.is_foreign(b"gocryptfs.conf", top=False)
    assert not cipher("deterministic-names").is_foreign(b"gocryptfs.diriv")
    assert plain.is_foreign(b"gocryptfs.conf")
    for name in (b"gocryptfs.diriv", b"gocryptfs.longname.abc.name", b".nfs0001"):
        assert not plain.is_foreign(name)


def test_ivs_of_directories() -> None:
    assert check_diriv(DIRIV) == DIRIV
    for wrong in (b"", bytes(16), DIRIV[:15], DIRIV + b"\0"):
        with pytest.raises(FormatError, match=r"^gocryptfs\.diriv: "):
            check_diriv(wrong)


@pytest.mark.parametrize("text", [b"AA\n", b"AB", b"A", b"AA=", b"A+", b"A/", b"\xff\xff"])
def test_base64_has_one_spelling(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"^name: "):
        decode(text, raw64=True, subject="name")
    assert decode(encode(b"\0", raw64=True), raw64=True, subject="name") == b"\0"
