"""docs/formats/sealed-body.md without our code and without the library's HPKE: what that page says is all it takes."""

import hmac
import json
from hashlib import sha3_256, sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests import ROOT
from tests.vectors.make_sealed_body import hkdf

VECTORS: Final[dict[str, Any]] = json.loads((ROOT / "tests/vectors/sealed_body.json").read_text())
SUITE: Final = b"HPKE" + bytes.fromhex("647a00010002")
LABEL: Final = b"strongroom/sealed-body/v1\0"


def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + material, "sha256")


def expand(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    info = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + context
    out, block = b"", b""
    while len(out) < length:
        block = hmac.digest(secret, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def test_a_request_opens_by_hand() -> None:
    derived = hkdf(
        bytes.fromhex(VECTORS["seed"]), bytes.fromhex(VECTORS["fresh"]), b"strongroom/sealed-key/v1\0", 96
    )
    mlkem = MLKEM768PrivateKey.from_seed_bytes(derived[:64])
    x25519 = X25519PrivateKey.from_private_bytes(derived[64:])
    sealed = bytes.fromhex(VECTORS["request"]["sealed"])
    key = bytes.fromhex(VECTORS["key"])
    assert sealed[0] == 1 and sealed[1:33] == sha256(key).digest()
    first, second, ciphertext = sealed[33 : 33 + 1088], sealed[33 + 1088 : 33 + 1120], sealed[33 + 1120 :]
    shared = sha3_256(
        mlkem.decapsulate(first)
        + x25519.exchange(X25519PublicKey.from_public_bytes(second))
        + second
        + key[-32:]
        + rb"\.//^\ "[:6]
    ).digest()
    info = LABEL + b"request\0\1" + sealed[1:33]
    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    aead = AESGCM(expand(secret, b"key", context, 32))
    plain = aead.decrypt(expand(secret, b"base_nonce", context, 12), ciphertext, b"")
    assert plain == bytes.fromhex(VECTORS["request"]["plain"])


def test_a_response_opens_by_hand() -> None:
    request, raw = VECTORS["request"], bytes.fromhex(VECTORS["response"]["sealed"])
    salt = sha256(bytes.fromhex(request["sealed"])).digest() + raw[1:33]
    info = LABEL + b"response\0\1" + bytes.fromhex(VECTORS["key_id"])
    aead = AESGCM(hkdf(bytes.fromhex(request["secret"]), salt, info, 32))
    at, contents = 33, list[bytes]()
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        contents.append(aead.decrypt(len(contents).to_bytes(12, "big"), raw[at + 4 : at + 4 + size], None))
        at += 4 + size
    assert [content[0] for content in contents] == [1, 2, 2, 3]
    assert [content[1:].decode() for content in contents[1:3]] == VECTORS["response"]["pieces"]
