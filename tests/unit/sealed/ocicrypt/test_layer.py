"""Mirrors sealed/ocicrypt/layer.py."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.ocicrypt.envelope import seal
from strongroom.sealed.ocicrypt.layer import (
    KEYS,
    PUBLIC,
    LayerKey,
    Opening,
    Sealing,
    open_annotations,
    pack_annotations,
)
from strongroom.wire.canonical import b64, unb64

OURS, THEIRS, OWN = (ec.derive_private_key(n, ec.SECP256R1()) for n in (5, 6, 7))
KEY = LayerKey(key=bytes(range(32)), nonce=b"\xff" * 16, digest=b"d" * 32)
PLAIN = bytes(range(256)) * 40


def sealed() -> tuple[bytes, bytes]:
    sealing = Sealing(KEY)
    return b"".join(sealing.update(PLAIN[at : at + 1000]) for at in range(0, len(PLAIN), 1000)), sealing.end()


def envelope(*keys: ec.EllipticCurvePrivateKey, plain: bytes = KEY.pack()) -> Any:
    return seal(
        plain, [key.public_key() for key in keys], ephemerals=[OWN] * len(keys), cek=bytes(32), iv=bytes(12)
    )


def test_there_and_back() -> None:
    content, mac = sealed()
    key, want = open_annotations(pack_annotations(envelope(OURS), mac), OURS)
    assert (key, want) == (KEY, mac) and content != PLAIN
    opening = Opening(key, want)
    assert b"".join(opening.update(content[at : at + 7]) for at in range(0, len(content), 7)) == PLAIN
    opening.end()


def test_the_cipher_is_aes_ctr_from_the_nonce_on() -> None:
    """NIST SP 800-38A F.5.5, CTR-AES256.Encrypt."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    nonce = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    sealing = Sealing(LayerKey(key=key, nonce=nonce, digest=None))
    assert (
        sealing.update(bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")).hex()
        == "601ec313775789a5b7a7f504bbf3d228"
    )


def test_every_flip_and_every_cut_is_noticed_at_the_end() -> None:
    content, mac = sealed()
    for damaged in (*(content[:end] for end in range(0, len(content), 97)), content + b"\0"):
        opening = Opening(KEY, mac)
        opening.update(damaged)
        with pytest.raises(VerifyError, match="hmac"):
            opening.end()
    for bit in range(0, 8 * len(content), 61):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        opening = Opening(KEY, mac)
        opening.update(bytes(changed))
        with pytest.raises(VerifyError, match="hmac"):
            opening.end()


def test_one_of_several_envelopes_is_enough() -> None:
    notes = pack_annotations(envelope(THEIRS), bytes(32))
    with pytest.raises(VerifyError, match="none of 1 recipients is our key"):
        open_annotations(notes, OURS)
    notes[KEYS] += "," + b64(envelope(OURS).pack())
    assert open_annotations(notes, OURS)[0] == KEY


def options(**changes: Any) -> dict[str, str]:
    notes = pack_annotations(envelope(OURS), bytes(32))
    return notes | {PUBLIC: b64(json.dumps(json.loads(unb64(notes[PUBLIC], "")) | changes).encode())}


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ({}, "public options"),
        (options(cipher="AES_256_CTR"), "cipher is 'AES_256_CTR', want AES_256_CTR_HMAC_SHA256"),
        (options(hmac=""), "hmac is 0 bytes, want 32"),
        (options(hmac=None), "not text"),
        (options(cipheroptions={"nonce": b64(bytes(16))}), "the nonce belongs into the envelope"),
        (options(more=1), "exactly cipher, hmac, cipheroptions"),
        ({PUBLIC: options()[PUBLIC]}, "keys are wrapped by nothing, want jwe"),
        ({PUBLIC: options()[PUBLIC], KEYS.replace("jwe", "pgp"): "x"}, "keys are wrapped by pgp, want jwe"),
        (options() | {KEYS: ""}, "jwe"),
        (options() | {KEYS: "!"}, "base64"),
        (options() | {KEYS: ",".join(["AAAA"] * 17)}, "17 envelopes"),
    ],
)
def test_annotations_that_are_none(notes: dict[str, str], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        open_annotations(notes, OURS)


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"s3cret",
        b'{"symkey":"s3cret"}',
        KEY.pack().replace(b'"nonce"', b'"s3cret"'),
        KEY.pack().replace(b"sha256:", b"s3cret:"),
        KEY.pack().replace(b'{"symkey":"', b'{"symkey":"AAAA'),
        KEY.pack()[:-1],
        KEY.pack()[:-1] + b',"s3cret":1}',
    ],
)
def test_a_layer_key_that_is_none_is_not_shown(plain: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        open_annotations(pack_annotations(envelope(OURS, plain=plain), bytes(32)), OURS)
    assert "s3cret" not in str(caught.value) and "layer key: want" in str(caught.value)
    assert b64(KEY.key) not in repr(KEY)


def test_the_digest_may_be_missing() -> None:
    for text in (b'"digest":""', b'"other":""'):
        plain = KEY.pack().replace(b'"digest":"sha256:' + b"64" * 32 + b'"', text)
        if b"other" in text:
            with pytest.raises(FormatError):
                LayerKey.parse(plain)
        else:
            assert LayerKey.parse(plain).digest is None
