"""Mirrors sealed/ocicrypt/envelope.py. That skopeo agrees is shown in tests/integration/test_images.py."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.jwk import PrivateKey
from strongroom.sealed.ocicrypt.envelope import MAX_RECIPIENTS, Envelope, open_envelope, seal
from strongroom.wire.canonical import b64u

P256 = ec.derive_private_key(7, ec.SECP256R1())
P521 = ec.derive_private_key(9, ec.SECP521R1())
OTHER = ec.derive_private_key(11, ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
EPHEMERAL = {
    P256.curve.name: ec.derive_private_key(13, ec.SECP256R1()),
    P521.curve.name: ec.derive_private_key(13, ec.SECP521R1()),
}
CEK, IV, PLAIN = bytes(range(32)), bytes(12), b"the layer's key"


def sealed(*keys: PrivateKey) -> Envelope:
    own = [EPHEMERAL[key.curve.name] if isinstance(key, ec.EllipticCurvePrivateKey) else None for key in keys]
    return seal(PLAIN, [key.public_key() for key in keys], ephemerals=own, cek=CEK, iv=IV)


@pytest.mark.parametrize("keys", [[P256], [P521], [RSA], [P256, RSA], [RSA, P521, P256], [OTHER, P256]])
def test_every_recipient_opens_it_and_nobody_else(keys: list[PrivateKey]) -> None:
    envelope = Envelope.parse(sealed(*keys).pack())
    assert envelope == sealed(*keys) or RSA in keys  # oaep is random
    for key in keys:
        assert open_envelope(envelope, key) == PLAIN
    everyone: list[PrivateKey] = [P256, P521, RSA, OTHER]
    for key in everyone:
        if key in keys:
            continue
        with pytest.raises(VerifyError, match=f"none of {len(keys)} recipients is our key"):
            open_envelope(envelope, key)


def test_what_skopeo_writes_for_rsa_is_read() -> None:
    protected = b64u(b'{"alg":"RSA-OAEP","enc":"A256GCM"}')
    content = AESGCM(CEK).encrypt(IV, PLAIN, protected.encode())
    wrapped = RSA.public_key().encrypt(CEK, padding.OAEP(padding.MGF1(SHA1()), SHA1(), None))
    raw = {
        "protected": protected,
        "encrypted_key": b64u(wrapped),
        "iv": b64u(IV),
        "ciphertext": b64u(content[:-16]),
        "tag": b64u(content[-16:]),
    }
    assert open_envelope(Envelope.parse(json.dumps(raw).encode()), RSA) == PLAIN


def test_the_first_key_repeated_at_the_top_is_tolerated() -> None:
    raw = json.loads(sealed(P256, OTHER).pack())
    raw["encrypted_key"] = raw["recipients"][0]["encrypted_key"]
    assert open_envelope(Envelope.parse(json.dumps(raw).encode()), OTHER) == PLAIN


@pytest.mark.parametrize("keys", [[P256], [P256, OTHER]])
def test_every_cut_and_every_flip_is_refused(keys: list[PrivateKey]) -> None:
    data = sealed(*keys).pack()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            Envelope.parse(data[:end])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            plain = open_envelope(Envelope.parse(bytes(changed)), keys[0])
        except StrongroomError:
            continue
        assert plain == PLAIN and len(keys) == 2  # the other recipient's part was hit


def bad(**changes: Any) -> bytes:
    raw = json.loads(sealed(P256, OTHER).pack())
    for name, value in changes.items():
        raw[name] = value
        if value is None:
            del raw[name]
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        bad(aad="AA"),
        bad(unprotected={}),
        bad(tag=None),
        bad(iv="AAAA"),
        bad(protected=b64u(b'{"enc":"A128GCM"}')),
        bad(protected=b64u(b'{"enc":"A256GCM","zip":"DEF"}')),
        bad(protected=b64u(b'{"enc":"A256GCM","crit":["x"]}')),
        bad(protected=b64u(b'{"enc":"A256GCM","alg":"dir"}')),
        bad(protected="A" * 5000),
        bad(recipients=None),
        bad(recipients=[]),
        bad(recipients=[{}]),
        bad(recipients=[{"header": [], "encrypted_key": "AA"}]),
        bad(recipients=[{"header": {"enc": "A256GCM"}, "encrypted_key": "AA"}]),
        bad(recipients=[{"header": {"kid": "1"}, "encrypted_key": "AA"}]),
        bad(recipients=[{"header": {}, "encrypted_key": "AA", "x": 1}]),
        bad(recipients=[{"header": {}, "encrypted_key": "AA"}] * (MAX_RECIPIENTS + 1)),
    ],
)
def test_what_is_not_an_envelope(data: bytes) -> None:
    with pytest.raises(FormatError):
        Envelope.parse(data)


def test_other_ways_to_wrap_are_not_ours() -> None:
    for header in (
        {},
        {"alg": "dir"},
        {"alg": "ECDH-ES"},
        {"alg": 1},
        {"alg": "RSA1_5"},
        {"alg": "ECDH-ES+A256KW", "epk": {}},
    ):
        envelope = Envelope.parse(bad(recipients=[{"header": header, "encrypted_key": "AA"}]))
        for key in (P256, RSA):
            with pytest.raises(StrongroomError):
                open_envelope(envelope, key)
