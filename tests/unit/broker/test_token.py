"""Mirrors broker/token.py."""

import json
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker import token
from strongroom.broker.proof import Finding, Proof
from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.initdata import InitData
from strongroom.evidence.kbs import CompositeEvidence, Digests
from strongroom.wire.canonical import JSON, b64u, pack_json, unb64u
from tests.fakes.broker import NOW
from tests.fakes.kbs import Machine

KEY = ec.derive_private_key(99, ec.SECP256R1())
PUBLIC = KEY.public_key()


def claims(init_data: InitData | None = None, **found: Any) -> dict[str, JSON]:
    evidence = CompositeEvidence(primary=Machine().primary(bytes(48)))
    digests = Digests(primary=bytes(48), device=bytes(48))
    proof = Proof(evidence=evidence, digests=digests, init_data=init_data)
    told: dict[str, Any] = {"simulated": False, "debug": False, "cpu": {"measurement": "00"}}
    finding = Finding(**told | found)
    return token.claims(proof, finding, runtime={"nonce": "n", "tee-pubkey": {}}, now=NOW)


def submods(value: dict[str, JSON]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(pack_json(value))["submods"]
    return found


def cpu(value: dict[str, JSON]) -> dict[str, Any]:
    return submods(value)["cpu0"]


def test_what_is_issued_checks() -> None:
    value = claims()
    assert token.check(token.issue(value, KEY), PUBLIC, now=NOW) == value


def test_it_lives_five_minutes() -> None:
    issued = token.issue(claims(), KEY)
    token.check(issued, PUBLIC, now=NOW + timedelta(seconds=299))
    for moment in (NOW + timedelta(seconds=300), NOW - timedelta(seconds=1)):
        with pytest.raises(VerifyError, match="expired"):
            token.check(issued, PUBLIC, now=moment)


def test_the_guest_s_key_is_where_clients_look() -> None:
    annotated = cpu(claims())["ear.veraison.annotated-evidence"]
    assert isinstance(annotated, dict)
    assert annotated["runtime_data_claims"] == {"nonce": "n", "tee-pubkey": {}}


def test_it_says_no_more_than_was_checked() -> None:
    assert cpu(claims())["ear.status"] == "warning"
    assert cpu(claims(debug=True))["ear.status"] == "contraindicated"


def test_what_was_found_is_under_the_tee_s_name() -> None:
    annotated = cpu(claims())["ear.veraison.annotated-evidence"]
    assert annotated["snp"] == {"measurement": "00", "insecure_simulated": False}
    assert annotated["report_data"] == bytes(48).hex()
    assert "init_data" not in annotated


def test_every_device_is_a_submodule_of_its_own() -> None:
    found = submods(claims(devices=(("gpu", {"arch": "hopper"}), ("switch", {}), ("gpu", {}))))
    assert [*found] == ["cpu0", "gpu0", "gpu1", "switch0"]
    assert found["gpu0"]["ear.veraison.annotated-evidence"] == {"nvidia": {"arch": "hopper"}}
    assert {one["ear.status"] for one in found.values()} == {"warning"}


def test_init_data_is_repeated_as_it_was_read() -> None:
    text = """algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"aa.toml" = 'a = 1'\n"policy.rego" = "package p"\n"""
    annotated = cpu(claims(InitData.parse(text)))["ear.veraison.annotated-evidence"]
    assert annotated["init_data"] == sha256(text.encode()).hexdigest()
    assert annotated["init_data_claims"] == {"aa.toml": {"a": 1}, "agent_policy_claims": "package p"}


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_contraindicated() -> None:
    assert cpu(claims(simulated=True))["ear.status"] == "contraindicated"


def test_another_key_s_token_is_refused() -> None:
    with pytest.raises(VerifyError, match="signature is not our broker's"):
        token.check(token.issue(claims(), ec.derive_private_key(5, ec.SECP256R1())), PUBLIC, now=NOW)


def test_every_character_counts() -> None:
    issued = token.issue(claims(), KEY)
    for n in range(0, len(issued), 7):
        other = "A" if issued[n] != "A" else "B"
        with pytest.raises(StrongroomError):
            token.check(issued[:n] + other + issued[n + 1 :], PUBLIC, now=NOW)


def test_an_unsigned_token_is_refused() -> None:
    header, payload, signature = token.issue(claims(), KEY).split(".")
    members = json.loads(unb64u(header, "header")) | {"alg": "none"}
    for text in (f"{b64u(pack_json(members))}.{payload}.{signature}", f"{header}.{payload}."):
        with pytest.raises(FormatError, match="not signed with ES256"):
            token.check(text, PUBLIC, now=NOW)


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "..", "x" * 300_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="token"):
        token.check(text, PUBLIC, now=NOW)


@pytest.mark.parametrize(
    "value", [{}, {"iat": 0, "exp": 1 << 40}, {"iat": True, "exp": 5, "eat_profile": token.PROFILE}]
)
def test_claims_of_another_shape_are_refused(value: dict[str, JSON]) -> None:
    with pytest.raises(FormatError, match="not as issued here"):
        token.check(token.issue(value, KEY), PUBLIC, now=NOW)
