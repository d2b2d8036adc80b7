"""Mirrors strongroom/keys/chain.py."""

from hashlib import sha256

import pytest

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.chain import issue, issued_digest, key_digest_v0, key_digest_v1, verify_chain
from strongroom.keys.recoverable import compressed, private_key, sign_recoverable

APP, SERVICE, KEY = (private_key(sha256(name).digest()) for name in (b"app", b"service", b"key"))
APP_PUBLIC, SERVICE_PUBLIC, PUBLIC = (compressed(key.public_key()) for key in (APP, SERVICE, KEY))
APP_ID = bytes(range(20))
DIGEST = key_digest_v1("secp256k1", "storage", PUBLIC)
CHAIN = (sign_recoverable(APP, DIGEST), issue(SERVICE, app_id=APP_ID, app_root=APP_PUBLIC))


def test_a_whole_chain_names_the_app_root() -> None:
    assert verify_chain(DIGEST, CHAIN, app_id=APP_ID, service_root=SERVICE_PUBLIC) == APP_PUBLIC


def test_a_chain_of_v0() -> None:
    digest = key_digest_v0("signing", PUBLIC)
    chain = (sign_recoverable(APP, digest), CHAIN[1])
    assert verify_chain(digest, chain, app_id=APP_ID, service_root=SERVICE_PUBLIC) == APP_PUBLIC


def test_v1_parts_what_v0_does_not() -> None:
    assert key_digest_v1("ab", "c", PUBLIC) != key_digest_v1("a", "bc", PUBLIC)
    assert key_digest_v0("a:b", PUBLIC) == key_digest_v0("a:b", PUBLIC)


def test_without_a_service_there_is_no_chain() -> None:
    with pytest.raises(VerifyError, match="no service issued"):
        verify_chain(DIGEST, (CHAIN[0], b""), app_id=APP_ID, service_root=SERVICE_PUBLIC)


def test_another_service_is_refused() -> None:
    forged = (CHAIN[0], issue(KEY, app_id=APP_ID, app_root=APP_PUBLIC))
    with pytest.raises(VerifyError, match="issued under"):
        verify_chain(DIGEST, forged, app_id=APP_ID, service_root=SERVICE_PUBLIC)


def test_another_application_is_refused() -> None:
    with pytest.raises(StrongroomError):
        verify_chain(DIGEST, CHAIN, app_id=bytes(20), service_root=SERVICE_PUBLIC)


def test_another_key_is_refused() -> None:
    for digest in (
        key_digest_v1("secp256k1", "storage", APP_PUBLIC),
        key_digest_v1("ed25519", "storage", PUBLIC),
        key_digest_v1("secp256k1", "storage2", PUBLIC),
    ):
        with pytest.raises(StrongroomError):
            verify_chain(digest, CHAIN, app_id=APP_ID, service_root=SERVICE_PUBLIC)


@pytest.mark.parametrize("link", [0, 1])
def test_every_flipped_bit_is_refused(link: int) -> None:
    for at in range(0, 520, 13):
        links = [bytearray(part) for part in CHAIN]
        links[link][at // 8] ^= 1 << at % 8
        with pytest.raises(StrongroomError):
            verify_chain(
                DIGEST, (bytes(links[0]), bytes(links[1])), app_id=APP_ID, service_root=SERVICE_PUBLIC
            )


def test_an_app_id_is_20_bytes() -> None:
    with pytest.raises(FormatError, match="app id 19"):
        issued_digest(bytes(19), APP_PUBLIC)
