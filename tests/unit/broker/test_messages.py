"""Mirrors broker/messages.py. Digests are those of the protocol's test vectors."""

import json
from typing import Any

import pytest

from strongroom.broker.messages import Attestation, Challenge, Request, TokenReply, runtime_data
from strongroom.errors import FormatError, ProtocolError, StrongroomError
from strongroom.evidence.binding import kbs_digest, kbs_report_data

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
JWK: dict[str, Any] = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "ItbHMuQKF46BQfSmKVtXEqob52tfWOps3H2Rc7tFydQ",
    "y": "44S4FX8jGG7ZGBmiYuNXE6vIqOmrr1Qur7uUV2ZkX1A",
}
ATTESTATION = Attestation(nonce=NONCE, tee_pubkey=JWK, primary={"attestation_report": {}, "cert_chain": None})


def test_the_digest_is_the_vector_s() -> None:
    want = "72aa6d1ff1978bfd60a5c2772442dc25c2b322c2c26205abb6d3f6c7ae268461ae135a3ab829f51fe3f9f352c7565df7"
    digest = kbs_digest(runtime_data(NONCE, JWK, ""))
    assert digest.hex() == want
    assert kbs_report_data(digest) == bytes.fromhex(want) + bytes(16)
    assert kbs_digest(ATTESTATION.runtime_data()) == digest


def test_the_device_digest_is_the_vector_s() -> None:
    want = "f4b39bba933d6e8ccbe043d31758e04973477676eab86cc3950560e75e4749e316fff72b913e526c729e200c13d52d44"
    assert kbs_digest({"nonce": NONCE, "tee-pubkey": JWK}).hex() == want


def test_additional_evidence_enters_the_digest() -> None:
    assert kbs_digest(runtime_data(NONCE, JWK, "x")) != kbs_digest(runtime_data(NONCE, JWK, ""))


def test_a_request_is_spelt_as_the_protocol_does() -> None:
    assert json.loads(Request("snp").pack()) == {
        "version": "0.4.0",
        "tee": "snp",
        "extra-params": {"supported-hash-algorithms": ["sha384"]},
    }


@pytest.mark.parametrize(
    "extra",
    ["", {}, {"supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"]}],
    ids=["text", "empty", "list"],
)
def test_a_request_of_another_client_is_read(extra: Any) -> None:
    body = json.dumps({"version": "0.4.0", "tee": "snp", "extra-params": extra}).encode()
    assert Request.parse(body).tee == "snp"


@pytest.mark.parametrize("version", ["0.1.0", "0.3.0", "0.4.1", "1.0.0", ""])
def test_another_version_is_refused_in_the_protocol_s_words(version: str) -> None:
    body = json.dumps({"version": version, "tee": "snp", "unknown-there": 1}).encode()
    want = f"KBS Client Protocol Version Mismatch: expect =0.4.0 while the request is {version}"
    with pytest.raises(ProtocolError) as caught:
        Request.parse(body)
    assert str(caught.value) == want


@pytest.mark.parametrize(
    "change",
    [
        {"version": 4},
        {"version": None},
        {"tee": ["snp"]},
        {"extra-params": None},
        {"extra-params": 5},
        {"extra-params": {"supported-hash-algorithms": "sha384"}},
        {"extra-params": {"supported-hash-algorithms": [1]}},
        {"extra-params": {"supported-hash-algorithms": ["x"] * 17}},
        {"extra-params": {"id": "a-policy"}},
        {"more": 1},
    ],
)
def test_a_request_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="request"):
        Request.parse(json.dumps(json.loads(Request("snp").pack()) | change).encode())


def test_a_challenge_round_trips() -> None:
    assert json.loads(Challenge(NONCE).pack()) == {"nonce": NONCE, "extra-params": ""}
    assert Challenge.parse(Challenge(NONCE).pack()) == Challenge(NONCE)


@pytest.mark.parametrize(
    "body",
    [
        {"nonce": NONCE},
        {"nonce": NONCE, "extra-params": None},
        {"nonce": NONCE, "extra-params": {}},
        {"nonce": NONCE, "extra-params": {"selected-hash-algorithm": "sha384"}},
        {"nonce": NONCE, "extra-params": "", "of a newer broker": [1]},
    ],
    ids=range(5),
)
def test_a_challenge_of_another_broker_is_read(body: dict[str, Any]) -> None:
    assert Challenge.parse(json.dumps(body).encode()) == Challenge(NONCE)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "nonce: missing"),
        ({"nonce": 5}, "nonce: got int, want text"),
        ({"nonce": "short"}, "got 5 characters"),
        ({"nonce": "x" * 1025}, "got 1025 characters"),
        ({"nonce": NONCE, "extra-params": 5}, "got int"),
        (
            {"nonce": NONCE, "extra-params": {"selected-hash-algorithm": "sha512"}},
            "got 'sha512', want sha384",
        ),
        ({"nonce": NONCE, "extra-params": {"selected-hash-algorithm": 5}}, "got 5, want sha384"),
        ({"nonce": NONCE, "extra-params": {"selected-hash-algorithm": ""}}, "got '', want sha384"),
        ([], "got list, want an object"),
    ],
)
def test_a_challenge_of_another_shape_is_refused(body: Any, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        Challenge.parse(json.dumps(body).encode())


def test_an_attestation_is_spelt_as_the_protocol_does() -> None:
    assert json.loads(ATTESTATION.pack()) == {
        "init-data": None,
        "runtime-data": {"nonce": NONCE, "tee-pubkey": JWK},
        "tee-evidence": {
            "primary_evidence": {"attestation_report": {}, "cert_chain": None},
            "additional_evidence": "",
        },
    }
    assert Attestation.parse(ATTESTATION.pack()) == ATTESTATION


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("init-data",), {"format": "toml", "body": ""}),
        (("init-data",), ""),
        (("runtime-data",), None),
        (("runtime-data", "nonce"), 5),
        (("runtime-data", "tee-pubkey"), "text"),
        (("runtime-data", "more"), 1),
        (("tee-evidence",), []),
        (("tee-evidence", "additional_evidence"), None),
        (("tee-evidence", "additional-evidence"), ""),
        (("more",), None),
    ],
)
def test_an_attestation_of_another_shape_is_refused(path: tuple[str, ...], value: Any) -> None:
    body = json.loads(ATTESTATION.pack())
    at = body
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    with pytest.raises(FormatError, match="attestation"):
        Attestation.parse(json.dumps(body).encode())


@pytest.mark.parametrize(
    "path", [("init-data",), ("runtime-data", "nonce"), ("tee-evidence", "additional_evidence")]
)
def test_no_member_of_an_attestation_may_be_missing(path: tuple[str, ...]) -> None:
    body = json.loads(ATTESTATION.pack())
    at = body
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    with pytest.raises(FormatError, match="missing"):
        Attestation.parse(json.dumps(body).encode())


def test_a_token_reply_round_trips_and_hides_the_token() -> None:
    assert TokenReply.parse(TokenReply("a.b.c").pack()) == TokenReply("a.b.c")
    assert "a.b.c" not in repr(TokenReply("a.b.c"))
    for body in (b"{}", b'{"token":null}', b"[]"):
        with pytest.raises(FormatError, match="token"):
            TokenReply.parse(body)


@pytest.mark.parametrize(
    ("message", "packed"),
    [
        (Request, Request("snp").pack()),
        (Challenge, Challenge(NONCE).pack()),
        (Attestation, ATTESTATION.pack()),
        (TokenReply, TokenReply("a.b.c").pack()),
    ],
    ids=["request", "challenge", "attestation", "token"],
)
def test_every_cut_is_refused(message: Any, packed: bytes) -> None:
    for n in range(len(packed)):
        with pytest.raises(StrongroomError):
            message.parse(packed[:n])
    with pytest.raises(StrongroomError):
        message.parse(packed + b"x")
