"""Mirrors strongroom/receipts/legacy.py. The vector was made once and recomputed with another library."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.recoverable import private_key
from strongroom.receipts.legacy import (
    Key,
    LegacySignature,
    address,
    personal_digest,
    report_data,
    sign,
    text,
    verify,
)

SECRET = bytes.fromhex("52786aa123b0971e283af97f32e25767483d099d66e6c40afeb3a49046b5379e")
ECDSA, ED25519 = private_key(SECRET), Ed25519PrivateKey.from_private_bytes(SECRET)
KEYS: list[Key] = [ECDSA, ED25519]
REQUEST, RESPONSE = sha256(b'{"a":1}').digest(), sha256(b'{"b":2}').digest()


def made(key: Key) -> LegacySignature:
    return sign(key, request=REQUEST, response=RESPONSE)


def test_the_vector() -> None:
    assert text(request=REQUEST, response=RESPONSE) == (
        "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862:"
        "0ab1a6d394cd30195f0642b67ae1180c375ffadf5dd7f39c390668b5fdb6da93"
    )
    assert made(ECDSA).signature == (
        "0x22a390308bf07df67862306d41961d4e9baa30a71d588cbd16908b61883c8f66"
        "4817beb5efbdd29ff62b37bbe9fd5cec09d4764dc6512441a512402aecd8ef3c1c"
    )
    assert made(ECDSA).signing_address == "0xB5783227550481e635B81FDAc162731D301748Bd"
    assert made(ED25519).signature == (
        "eea64573b0dc9d7d03112958319ab1896dc56323081912d54e58aa7d5c14fd6c"
        "bc623c3deec85885b3ee863f8be9a4d1764b7aa2721c85c780f185da113fa905"
    )


@pytest.mark.filterwarnings("ignore")
def test_ethereum_s_own_library_agrees() -> None:
    account = pytest.importorskip("eth_account")
    message = pytest.importorskip("eth_account.messages").encode_defunct(text=made(ECDSA).text)
    assert account.Account.recover_message(message, signature=made(ECDSA).signature) == address(ECDSA)
    assert (
        account.Account.sign_message(message, SECRET).signature.hex().removeprefix("0x")
        == made(ECDSA).signature[2:]
    )


@pytest.mark.parametrize("key", KEYS)
def test_what_is_signed_verifies(key: Key) -> None:
    signed = LegacySignature.from_json(made(key).to_json())
    verify(signed, request=REQUEST, response=RESPONSE, signing_address=address(key))


@pytest.mark.parametrize("key", KEYS)
def test_other_bodies_another_signer_or_signature_are_refused(key: Key) -> None:
    signed = made(key)
    for request, response in ((RESPONSE, RESPONSE), (REQUEST, REQUEST)):
        with pytest.raises(VerifyError, match="it is over"):
            verify(signed, request=request, response=response, signing_address=address(key))
    with pytest.raises(VerifyError, match="signed by"):
        verify(signed, request=REQUEST, response=RESPONSE, signing_address="0x" + "00" * 20)
    digits = signed.signature.removeprefix("0x")
    for at in range(0, len(digits), 3):
        other = digits[:at] + f"{int(digits[at], 16) ^ 1:x}" + digits[at + 1 :]
        forged = replace(signed, signature=signed.signature[: -len(digits)] + other)
        with pytest.raises(StrongroomError):
            verify(forged, request=REQUEST, response=RESPONSE, signing_address=address(key))


@pytest.mark.parametrize(
    "change",
    [
        {"signing_algo": "rsa"},
        {"signing_algo": "ed25519"},
        {"signature": ""},
        {"signature": "0x" + "00" * 64},
        {"signature": "0x" + "AA" * 65},
        {"signing_address": "0x00"},
        {"text": ""},
        {"text": "AB" * 32 + ":" + "00" * 32},
        {"text": None},
        {"more": ""},
    ],
)
def test_a_wrong_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"^signature"):
        LegacySignature.from_json(made(ECDSA).to_json() | change)


def test_v_is_27_or_28() -> None:
    with pytest.raises(FormatError, match="v is 0"):
        verify(
            replace(made(ECDSA), signature=made(ECDSA).signature[:-2] + "00"),
            request=REQUEST,
            response=RESPONSE,
            signing_address=address(ECDSA),
        )


def test_report_data_of_both_versions() -> None:
    nonce, spki = bytes(range(32)), bytes([7]) * 32
    key = bytes.fromhex(address(ECDSA)[2:])
    assert report_data(address(ECDSA), nonce=nonce) == key + bytes(12) + nonce
    assert report_data(address(ED25519), nonce=nonce) == bytes.fromhex(address(ED25519)) + nonce
    second = report_data(address(ECDSA), nonce=nonce, tls_spki_sha256=spki)
    assert second == sha256(key + spki).digest() + nonce
    for wrong in (b"", spki[:31], spki + b"\0", b"a whole SPKI, and not the hash of one"):
        with pytest.raises(FormatError, match=r"tls_spki_sha256: .* want 32"):
            report_data(address(ECDSA), nonce=nonce, tls_spki_sha256=wrong)
    with pytest.raises(FormatError, match="31 bytes"):
        report_data(address(ECDSA), nonce=bytes(31))
    with pytest.raises(FormatError, match="signing address"):
        report_data("0x00", nonce=nonce)


def test_the_length_is_part_of_the_message() -> None:
    assert personal_digest(b"a") != personal_digest(b"aa")
