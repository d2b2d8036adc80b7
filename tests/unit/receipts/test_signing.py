"""Mirrors strongroom/receipts/signing.py."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, VerifyError
from strongroom.receipts.signing import ED25519_SPKI, HYBRID_SPKI, Signer, verify
from tests.fakes.exchange import spki, tls_key

MESSAGE = b"strongroom/receipt/v2\0{}"
ONE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PLAIN = Signer(ONE)
HYBRID = Signer(ONE, MLDSA65PrivateKey.from_seed_bytes(bytes(range(32))))
OTHER = Signer(ONE, MLDSA65PrivateKey.from_seed_bytes(bytes(32)))


def check(key: bytes, signature: bytes, message: bytes = MESSAGE) -> None:
    verify(key, signature, message, subject="it")


def test_the_plain_form_is_plain_ed25519() -> None:
    assert PLAIN.key == spki(ONE)
    assert PLAIN.sign(MESSAGE) == ONE.sign(MESSAGE)
    check(PLAIN.key, PLAIN.sign(MESSAGE))


def test_the_hybrid_form_is_both() -> None:
    signature = HYBRID.sign(MESSAGE)
    assert (len(HYBRID.key), len(signature)) == (HYBRID_SPKI, 64 + 3309)
    assert signature[:64] == ONE.sign(MESSAGE)
    check(HYBRID.key, signature)


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("at", [0, 63, 64, 65, 2000, -1])
def test_both_halves_count(at: int) -> None:
    signature = bytearray(HYBRID.sign(MESSAGE))
    signature[at] ^= 1
    with pytest.raises(VerifyError, match="it: the signature does not match"):
        check(HYBRID.key, bytes(signature))


@pytest.mark.guarantee("G12")
def test_no_half_stands_alone() -> None:
    both = HYBRID.sign(MESSAGE)
    for key, signature in (
        (HYBRID.key, both[:64]),
        (HYBRID.key, both[64:]),
        (HYBRID.key, OTHER.sign(MESSAGE)),
        (HYBRID.key, both + b"\0"),
        (PLAIN.key, both),
        (PLAIN.key, PLAIN.sign(MESSAGE) + b"\0"),
        (PLAIN.key, b""),
    ):
        with pytest.raises(VerifyError, match="does not match"):
            check(key, signature)


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("signer", [PLAIN, HYBRID])
def test_another_message_is_refused(signer: Signer) -> None:
    with pytest.raises(VerifyError):
        check(signer.key, signer.sign(MESSAGE), MESSAGE + b" ")


def _spki(key: MLDSA44PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"", "not a DER public key"),
        (PLAIN.key[:-1], "not a DER public key"),
        (HYBRID.key[ED25519_SPKI:], "MLDSA65PublicKey, want Ed25519"),
        (HYBRID.key + b"\0", "not a DER public key"),
        (spki(tls_key()), "want Ed25519"),
        (PLAIN.key + bytes(HYBRID_SPKI - ED25519_SPKI), "not a DER public key"),
        (PLAIN.key + _spki(MLDSA44PrivateKey.from_seed_bytes(bytes(32))), "not a DER public key"),
    ],
)
def test_keys_of_another_form_are_refused(key: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=f"it: .*{why}"):
        check(key, PLAIN.sign(MESSAGE))
