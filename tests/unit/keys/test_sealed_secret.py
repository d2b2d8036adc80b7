"""Mirrors strongroom/keys/sealed_secret.py. The key pair is that of guest-components' own tests; jwcrypto and joserfc
are second opinions on the signature."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.sealed_secret import Content, Envelope, SealedSecret, Vault, envelope, sign
from strongroom.wire.canonical import JSON, b64, b64u, pack_json, unb64u

JWK: Final = {
    "kty": "EC",
    "crv": "P-256",
    "d": "7baJLiTk68NcLgYPv05jJvElqoAhbzi1ZWx4OyILUtA",
    "x": "QT3_slJmispaOwnAo6hxebXGLRuiveFuRCLpS4j4S4k",
    "y": "jcDn4N4nRBQ-a7_D3qjqtb6hwOAXh_ve1wvibPSi1G0",
}
KEY: Final = ec.derive_private_key(int.from_bytes(unb64u(JWK["d"], "d"), "big"), ec.SECP256R1())
KID: Final = "kbs:///default/signer/key"
VAULT: Final = Vault("kbs:///one/2/trois")
SECRET: Final = b"hello model key"
BROKERS: Final = bytes(range(32))
ENVELOPE: Final = envelope(
    SECRET, key=BROKERS, key_id="kbs:///one/2/key", content_key=bytes(range(32, 64)), iv=bytes(range(12))
)


def opened(text: str) -> Content:
    return SealedSecret.parse(text).verify(KEY.public_key())


def signed(payload: "JSON | bytes", header: JSON = None) -> str:
    raw = payload if isinstance(payload, bytes) else pack_json(payload)
    template = sign(VAULT, KEY, kid=KID).split(".")
    head = template[1] if header is None else b64u(pack_json(header))
    text = f"{head}.{b64u(raw)}"
    r, s = decode_dss_signature(KEY.sign(text.encode(), ec.ECDSA(SHA256())))
    return f"sealed.{text}.{b64u(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_the_public_key_is_that_of_the_jwk() -> None:
    numbers = KEY.public_key().public_numbers()
    assert b64u(numbers.x.to_bytes(32, "big")) == JWK["x"]
    assert b64u(numbers.y.to_bytes(32, "big")) == JWK["y"]


@pytest.mark.parametrize("content", [VAULT, ENVELOPE], ids=["vault", "envelope"])
def test_what_was_signed_comes_back(content: Content) -> None:
    text = sign(content, KEY, kid=KID)
    assert SealedSecret.parse(text).kid == KID
    assert opened(text) == content


def test_the_published_vault_payload_is_read_and_written() -> None:
    published: dict[str, JSON] = {
        "version": "0.1.0",
        "type": "vault",
        "name": "kbs:///one/2/trois",
        "provider": "kbs",
        "provider_settings": {},
        "annotations": {},
    }
    assert opened(signed(published)) == VAULT
    assert json.loads(unb64u(sign(VAULT, KEY, kid=KID).split(".")[2], "payload")) == published


def test_an_envelope_opens_with_the_brokers_key_alone() -> None:
    assert ENVELOPE.open(BROKERS) == SECRET
    with pytest.raises(VerifyError, match="does not unwrap"):
        ENVELOPE.open(bytes(32))
    with pytest.raises(FormatError, match="its key is 31 bytes"):
        ENVELOPE.open(bytes(31))


def test_the_data_of_an_envelope_is_a_plain_aes_gcm() -> None:
    data = AESGCM(bytes(range(32, 64))).encrypt(bytes(range(12)), SECRET, None)
    assert ENVELOPE.encrypted_data == data


def test_every_changed_bit_of_an_envelope_is_refused() -> None:
    for name in ("encrypted_key", "encrypted_data", "iv"):
        octets: bytes = getattr(ENVELOPE, name)
        for bit in range(8 * len(octets)):
            flipped = bytearray(octets)
            flipped[bit // 8] ^= 1 << bit % 8
            changed: dict[str, Any] = {name: bytes(flipped)}
            with pytest.raises(VerifyError):
                replace(ENVELOPE, **changed).open(BROKERS)


def test_a_content_key_of_another_size_is_refused() -> None:
    short = Envelope(
        key_id="k", encrypted_key=aes_key_wrap(BROKERS, bytes(16)), encrypted_data=b"", iv=bytes(12)
    )
    with pytest.raises(VerifyError, match="content key is 16 bytes, want 32"):
        short.open(BROKERS)


@pytest.mark.parametrize("content", [VAULT, ENVELOPE], ids=["vault", "envelope"])
def test_every_changed_character_and_every_cut_is_refused(content: Content) -> None:
    text = sign(content, KEY, kid=KID)
    assert opened(text) == content
    for n in range(len(text)):
        with pytest.raises(StrongroomError, match="sealed secret"):
            opened(text[:n])
        with pytest.raises(StrongroomError, match="sealed secret"):
            opened(text[:n] + ("B" if text[n] == "A" else "A") + text[n + 1 :])
    with pytest.raises(FormatError, match="sealed secret"):
        opened(text + ".")


def test_another_key_did_not_sign_it() -> None:
    text = sign(VAULT, ec.generate_private_key(ec.SECP256R1()), kid=KID)
    with pytest.raises(VerifyError, match="not signed by the key of 'kbs:///default/signer/key'"):
        opened(text)


def test_a_key_of_another_curve_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(FormatError, match="key is on secp384r1"):
        SealedSecret.parse(sign(VAULT, KEY, kid=KID)).verify(other)


@pytest.mark.parametrize("numbers", [(0, 0), (0, 1), (1, 0), (1, 1), (2**256 - 1, 2**256 - 1)])
def test_numbers_that_sign_nothing_are_refused(numbers: tuple[int, int]) -> None:
    head = sign(VAULT, KEY, kid=KID).rpartition(".")[0]
    raw = b"".join(number.to_bytes(32, "big") for number in numbers)
    with pytest.raises(VerifyError):
        opened(f"{head}.{b64u(raw)}")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"alg": "none", "kid": KID}, "alg: got 'none', want ES256"),
        ({"alg": "HS256", "kid": KID}, "alg"),
        ({"alg": "ES256"}, "want exactly alg and kid"),
        ({"alg": "ES256", "kid": KID, "jwk": JWK}, "want exactly alg and kid"),
        ({"alg": "ES256", "kid": KID, "crit": []}, "want exactly alg and kid"),
        ({"alg": "ES256", "kid": ""}, "kid: want 1..512"),
        ({"alg": "ES256", "kid": "k" * 513}, "kid: want 1..512"),
        ({"alg": "ES256", "kid": 1}, "kid: want 1..512"),
        ([], "want exactly alg and kid"),
    ],
)
def test_another_header_is_refused_whoever_signed(header: JSON, why: str) -> None:
    with pytest.raises(FormatError, match=f"sealed secret.header.*{why}"):
        opened(signed({"version": "0.1.0", **VAULT.to_json()}, header))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "0.2.0"}, "version: got '0.2.0', want 0.1.0"),
        ({"type": "other"}, "type: got 'other', want vault or envelope"),
        ({"type": []}, "type"),
        ({"type": "envelope"}, "unknown member 'name'"),
        ({"name": 1}, "name: not text"),
        ({"provider": None}, "provider: not text"),
        ({"more": 1}, "unknown member 'more'"),
        ({"annotations": []}, "must be objects"),
        ({"provider_settings": "x"}, "must be objects"),
    ],
)
def test_another_payload_is_refused_whoever_signed(change: dict[str, JSON], why: str) -> None:
    with pytest.raises(FormatError, match=f"sealed secret.payload.*{why}"):
        opened(signed({"version": "0.1.0", **VAULT.to_json(), **change}))


def test_annotations_may_be_missing_and_nothing_else() -> None:
    whole: dict[str, JSON] = {"version": "0.1.0", **ENVELOPE.to_json()}
    for name in whole:
        left = {key: value for key, value in whole.items() if key != name}
        if name == "annotations":
            assert opened(signed(left)) == ENVELOPE
        else:
            with pytest.raises(FormatError, match=f"{name}: (missing|got None)"):
                opened(signed(left))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"wrap_type": "A256CTR"}, "wrap_type: got 'A256CTR', want A256GCM"),
        ({"iv": b64(bytes(11))}, "iv: 11 bytes, want 12"),
        ({"iv": "not base64"}, "iv: not padded base64"),
        ({"encrypted_key": "AA"}, "encrypted_key: not padded base64"),
    ],
)
def test_another_envelope_is_refused_whoever_signed(change: dict[str, JSON], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        opened(signed({"version": "0.1.0", **ENVELOPE.to_json(), **change}))


@pytest.mark.parametrize("payload", [b"", b"1", b"{", b'{"type":"vault","type":"vault"}', b"\xff"])
def test_what_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(FormatError, match="sealed secret"):
        opened(signed(payload))


def test_a_text_is_bounded() -> None:
    with pytest.raises(FormatError, match="want at most"):
        SealedSecret.parse("sealed." + "A" * (256 << 10))


def test_fresh_octets_have_their_sizes() -> None:
    for name in ("key", "content_key", "iv"):
        sizes = {"key": bytes(32), "content_key": bytes(32), "iv": bytes(12), name: bytes(5)}
        with pytest.raises(ValueError, match="is 5 bytes"):
            envelope(b"", key_id="k", **sizes)


def test_two_other_libraries_agree() -> None:
    jwcrypto_jws = pytest.importorskip("jwcrypto.jws")
    jwcrypto_jwk = pytest.importorskip("jwcrypto.jwk")
    joserfc_jws = pytest.importorskip("joserfc.jws")
    joserfc_jwk = pytest.importorskip("joserfc.jwk")
    payload = pack_json({"version": "0.1.0", **VAULT.to_json()})

    ours = sign(VAULT, KEY, kid=KID).removeprefix("sealed.")
    token = jwcrypto_jws.JWS()
    token.deserialize(ours, jwcrypto_jwk.JWK(**JWK))
    assert token.payload == payload
    key = joserfc_jwk.ECKey.import_key({**JWK, "kid": KID})
    assert joserfc_jws.deserialize_compact(ours, key).payload == payload

    theirs = joserfc_jws.serialize_compact({"alg": "ES256", "kid": KID}, payload, key)
    assert opened(f"sealed.{theirs}") == VAULT
    token = jwcrypto_jws.JWS(payload)
    token.add_signature(jwcrypto_jwk.JWK(**JWK), protected=json.dumps({"alg": "ES256", "kid": KID}))
    assert opened(f"sealed.{token.serialize(compact=True)}") == VAULT
