"""What our desk serves, opened by two JOSE libraries of other makers; and the protocol's vectors, made by our desk."""

import json
from collections.abc import Callable
from hashlib import sha256, sha384
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from strongroom.broker.exchange import Admission
from strongroom.broker.messages import Challenge
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.keys.jwe import key_encryption_key, seal
from strongroom.keys.jwk import PrivateKey
from strongroom.wire.canonical import pack_json, unb64u
from tests.fakes.broker import NOW, URI, VOLUME, Guest, ToldKeeper, carry, desk
from tests.fakes.kbs import Machine

KEYS: dict[str, Callable[[], PrivateKey]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


def served(key: PrivateKey) -> str:
    """A resource as it leaves the desk, sealed to `key`."""
    at = desk(ToldKeeper())
    guest = Guest.on(Machine(), key=key)
    admission: Admission = guest.admitted(at)
    answer = carry(at, admission.ask(URI), now=NOW)
    assert answer.status == 200
    return answer.body.decode()


def pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("kind", KEYS)
def test_jwcrypto_opens_what_we_serve(kind: str) -> None:
    jwe: Any = pytest.importorskip("jwcrypto.jwe", reason="jwcrypto is not installed")
    jwk: Any = pytest.importorskip("jwcrypto.jwk", reason="jwcrypto is not installed")
    key = KEYS[kind]()
    opened = jwe.JWE()
    opened.deserialize(served(key), jwk.JWK.from_pem(pem(key)))
    assert opened.payload == VOLUME.pack()


@pytest.mark.parametrize("kind", KEYS)
def test_joserfc_opens_what_we_serve(kind: str) -> None:
    jwe: Any = pytest.importorskip("joserfc.jwe", reason="joserfc is not installed")
    jwk: Any = pytest.importorskip("joserfc.jwk", reason="joserfc is not installed")
    key = KEYS[kind]()
    made = (jwk.RSAKey if kind == "RSA" else jwk.ECKey).import_key(pem(key).decode())
    algorithms = ["ECDH-ES+A256KW", "RSA-OAEP-256", "A256GCM"]
    opened = jwe.decrypt_json(json.loads(served(key)), made, algorithms=algorithms)
    assert opened.plaintext == VOLUME.pack()


@pytest.mark.parametrize("kind", KEYS)
def test_the_header_is_in_the_order_that_clients_write_it(kind: str) -> None:
    key = KEYS[kind]()
    header = json.loads(unb64u(json.loads(served(key))["protected"], "protected"))
    members = ["alg", "enc"] if kind == "RSA" else ["alg", "enc", "epk"]
    assert [*header] == members
    if kind != "RSA":
        assert [*header["epk"]] == ["crv", "kty", "x", "y"]


# The vectors: made once, and checked with three libraries.

NONCE = bytes(range(32))
TEE_KEY = ec.derive_private_key(int.from_bytes(sha256(b"tee key").digest(), "big"), ec.SECP256R1())
EPHEMERAL = ec.derive_private_key(int.from_bytes(sha256(b"epk").digest(), "big"), ec.SECP256R1())
SEALED = {
    "protected": (
        "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJL"
        "Njh5dU9HdFd5bmdjWVU0TzFGSUUzS0lsVnJwX3NqQWU4RnpYMVNIWVk0IiwieSI6IkVhNXdfQWNNSEtiSmdaejJCTlRQMVhwNjIyRkJ1"
        "YmxXZkkzcFRySFZ5SHcifX0"
    ),
    "encrypted_key": "nXsKCo8rzhaWs3Zrf08s9-c6DpswS1VhLb57JLncvPYXK_04tsPRUQ",
    "iv": "AAECAwQFBgcICQoL",
    "ciphertext": "NDcxyyUVhoPYnKXmTRYn",
    "tag": "Yrd4FJdyYygR3UirvTjLrw",
}


class VectorRandomness:
    """Gives what the vectors were made with, in the order a desk asks for it."""

    def __init__(self) -> None:
        self._octets = [NONCE, bytes(16), bytes(range(32, 64)), bytes(range(12))]

    def octets(self, n: int) -> bytes:
        assert len(self._octets[0]) == n
        return self._octets.pop(0)

    def key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        assert isinstance(curve, ec.SECP256R1)
        return EPHEMERAL


def test_a_whole_exchange_reproduces_every_vector() -> None:
    keeper = ToldKeeper(resources={URI: b"hello model key"})
    at = desk(keeper)
    at._random = VectorRandomness()
    # A client that has nothing to say beside its report: additional-evidence is there, and empty.
    guest = Guest(lambda asked: CompositeEvidence(primary=Machine().primary(asked.digest())), key=TEE_KEY)
    admission = guest.admitted(at)
    assert Challenge.parse(guest.answers[0].body).nonce == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    attested = json.loads(guest.sent[1].body)
    assert attested["runtime-data"]["tee-pubkey"] == {
        "kty": "EC",
        "crv": "P-256",
        "alg": "ECDH-ES+A256KW",
        "x": "ItbHMuQKF46BQfSmKVtXEqob52tfWOps3H2Rc7tFydQ",
        "y": "44S4FX8jGG7ZGBmiYuNXE6vIqOmrr1Qur7uUV2ZkX1A",
    }
    (proof,) = keeper.verified
    assert proof.digests.device.hex() == (
        "f4b39bba933d6e8ccbe043d31758e04973477676eab86cc3950560e75e4749e316fff72b913e526c729e200c13d52d44"
    )
    assert guest.sent[1].body.count(b'"additional_evidence":""') == 1
    assert proof.digests.primary.hex() == (
        "72aa6d1ff1978bfd60a5c2772442dc25c2b322c2c26205abb6d3f6c7ae268461ae135a3ab829f51fe3f9f352c7565df7"
    )
    answer = carry(at, admission.ask(URI))
    assert json.loads(answer.body) == SEALED
    assert admission.key is TEE_KEY


def test_the_parts_of_the_vector() -> None:
    kek = key_encryption_key(EPHEMERAL, TEE_KEY.public_key())
    assert kek.hex() == "64ea0fd3efc8c84c26789b822a226913f7b429d7b5e2a4272ddbece1199d062d"
    private = TEE_KEY.private_numbers().private_value
    assert f"{private:064x}" == "ef133eb5c583dc2eda9883b450e0e2c33cb389bb2f85cf95058d72fd5ec5b2ab"
    made = seal(
        b"hello model key",
        TEE_KEY.public_key(),
        ephemeral=EPHEMERAL,
        cek=bytes(range(32, 64)),
        iv=bytes(range(12)),
    )
    assert made.to_json() == SEALED


def test_the_canonical_form_of_the_vector() -> None:
    assert sha384(pack_json({"b": 1, "a": "test", "c": {"d": "e"}})).hexdigest() == (
        "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3"
    )
