"""Mirrors broker/ear.py: tokens of an attestation service, as a consumer reads them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.broker.ear import PROFILE, Signers, check_ear, lifetime, tee_key
from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.jwk import pack_jwk
from strongroom.wire.canonical import JSON, b64, b64u

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = ec.derive_private_key(7, ec.SECP256R1())
ROOT_KEY = ec.derive_private_key(8, ec.SECP256R1())
TEE = pack_jwk(ec.derive_private_key(9, ec.SECP256R1()).public_key())


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    end: datetime = NOW + timedelta(days=30),
) -> bytes:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = x509.CertificateBuilder(
        issuer_name=named(issuer),
        subject_name=named(name),
        public_key=key.public_key(),
        serial_number=5,
        not_valid_before=NOW - timedelta(days=30),
        not_valid_after=end,
    ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(by, SHA256()).public_bytes(Encoding.DER)


ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY, ca=True)
LEAF = certificate("signer", KEY, "root", ROOT_KEY, ca=False)
BY_ROOT = Signers(roots=(ROOT,))
BY_NAME = Signers(keys={"a": KEY.public_key()})


def claims(**changes: Any) -> dict[str, Any]:
    submod = {
        "ear.status": "affirming",
        "ear.veraison.annotated-evidence": {"runtime_data_claims": {"nonce": "n", "tee-pubkey": TEE}},
    }
    value: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 300,
        "submods": {"cpu0": submod, "gpu0": {"ear.status": "affirming"}},
    }
    return value | changes


def token(value: JSON = None, header: dict[str, Any] | None = None) -> str:
    """Signed by KEY; a trustworthiness may be a fraction in others' tokens, so their JSON is not canonical."""
    head = {"typ": "JWT", "alg": "ES256", "kid": "a"} | (header or {})
    signed = f"{b64u(json.dumps(head).encode())}.{b64u(json.dumps(value or claims()).encode())}"
    r, s = decode_dss_signature(KEY.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{b64u(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def check(text: str, signers: Signers = BY_NAME, **changes: Any) -> dict[str, JSON]:
    arguments: dict[str, Any] = {"signers": signers, "tee_pubkey": TEE, "now": NOW}
    return check_ear(text, **arguments | changes)


def test_a_token_of_a_known_signer() -> None:
    assert check(token()) == claims()
    jwk: dict[str, Any] = {"kid": None, "jwk": {"x5c": [b64(LEAF)]}}
    assert check(token(header=jwk), BY_ROOT) == claims()
    assert check(token(header={"kid": None, "x5c": [b64(LEAF), b64(ROOT)]}), BY_ROOT) == claims()
    assert check(token(header={"kid": "b", "jwk": {"kid": "a"}})) == claims()


@pytest.mark.guarantee("G1")
def test_a_key_in_the_header_is_no_trust() -> None:
    own: dict[str, Any] = {"kid": None, "jwk": {**pack_jwk(KEY.public_key())}}
    for signers in (BY_NAME, BY_ROOT, Signers()):
        with pytest.raises(VerifyError, match="signed by nobody known"):
            check(token(header=own), signers)


@pytest.mark.parametrize(
    "chain",
    [
        [certificate("signer", KEY, "other", KEY, ca=False)],
        [certificate("signer", KEY, "root", KEY, ca=False)],  # of the right name alone
        [certificate("signer", KEY, "root", ROOT_KEY, ca=False, end=NOW - timedelta(days=1))],
        [LEAF, certificate("root", KEY, "root", KEY, ca=True)],
        [
            certificate("signer", KEY, "mid", KEY, ca=False),
            certificate("mid", KEY, "root", ROOT_KEY, ca=False),
        ],
        [b"x"],
        [certificate("signer", ec.derive_private_key(5, ec.SECP384R1()), "root", ROOT_KEY, ca=False)],
    ],
    ids=["root", "signature", "time", "another root", "no authority", "no certificate", "curve"],
)
def test_certificates_have_to_lead_to_a_known_root(chain: list[bytes]) -> None:
    with pytest.raises(VerifyError, match="token: "):
        check(token(header={"kid": None, "x5c": [*map(b64, chain)]}), BY_ROOT)


@pytest.mark.parametrize("chain", [[b64(LEAF)] * 6, [5]])
def test_a_chain_of_another_shape(chain: list[Any]) -> None:
    with pytest.raises(FormatError, match="x5c is not a list of at most 5"):
        check(token(header={"kid": None, "x5c": chain}), BY_ROOT)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"eat_profile": "other"}, "profile is other"),
        ({"exp": int(NOW.timestamp())}, "expired"),
        ({"iat": int(NOW.timestamp()) + 1}, "expired"),
        ({"iat": None}, "expired"),
        ({"exp": "soon"}, "expired"),
        ({"submods": {}}, "no submods"),
        ({"submods": {"cpu0": 5}}, "cpu0 is None"),
        (
            {"submods": claims()["submods"] | {"gpu0": {"ear.status": "warning"}}},
            "gpu0 is warning, want affirming",
        ),
    ],
)
def test_claims_that_are_not_what_is_wanted(change: dict[str, Any], why: str) -> None:
    with pytest.raises(StrongroomError, match=why):
        check(token(claims(**change)))


def test_it_speaks_for_one_key() -> None:
    other = pack_jwk(KEY.public_key())
    with pytest.raises(VerifyError, match="another key than ours"):
        check(token(), tee_pubkey=other)
    assert check(token(), tee_pubkey=None)
    assert check(token(claims(submods={"cpu0": {"ear.status": "warning"}})), tee_pubkey=None,
                 statuses=frozenset({"warning"}))  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        {"customized_claims": {"runtime_data": {"tee-pubkey": TEE}}},
        {"tdx": {"attester_runtime_data": {"tee-pubkey": TEE}}},
        {"tdx": {"attester_user_data": {"tee-pubkey": TEE}}},
        {"tee-pubkey": TEE},
    ],
)
def test_services_put_the_key_in_several_places(value: dict[str, JSON]) -> None:
    assert tee_key(value) == TEE
    assert tee_key({"tdx": 5}) is None


def test_every_character_counts() -> None:
    text = token()
    for n in range(0, len(text), 5):
        other = "A" if text[n] != "A" else "B"
        with pytest.raises(StrongroomError):
            check(text[:n] + other + text[n + 1 :])


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "..", "x" * 300_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="token"):
        check(text)
    assert lifetime(text) is None


def test_an_unsigned_token_is_refused() -> None:
    head, body, _ = token(header={"alg": "none"}).split(".")
    for text in (f"{head}.{body}.", token(header={"alg": "none"})):
        with pytest.raises(FormatError, match="not signed with ES256"):
            check(text)
