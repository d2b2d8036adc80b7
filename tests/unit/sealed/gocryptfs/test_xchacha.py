"""Mirrors strongroom/sealed/gocryptfs/xchacha.py. Vectors: draft-irtf-cfrg-xchacha-03, 2.2.1 and A.3.1."""

import pytest
from cryptography.exceptions import InvalidTag

from strongroom.sealed.gocryptfs.xchacha import XChaCha20Poly1305, hchacha20

TEXT = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SEALED = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
    "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
)
KEY, NONCE, AAD = (
    bytes(range(0x80, 0xA0)),
    bytes(range(0x40, 0x58)),
    bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
)


def test_the_key_of_a_nonce() -> None:
    found = hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927"))
    assert found.hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"


def test_the_vector_of_the_draft() -> None:
    cipher, out = XChaCha20Poly1305(KEY), bytearray(len(SEALED))
    cipher.encrypt_into(NONCE, TEXT, AAD, out)
    assert out == SEALED
    back = bytearray(len(TEXT))
    cipher.decrypt_into(memoryview(NONCE), memoryview(SEALED), AAD, back)
    assert back == TEXT


def test_a_changed_nonce_opens_nothing() -> None:
    for position in range(24):
        nonce = bytearray(NONCE)
        nonce[position] ^= 1
        with pytest.raises(InvalidTag):
            XChaCha20Poly1305(KEY).decrypt_into(nonce, SEALED, AAD, bytearray(len(TEXT)))
