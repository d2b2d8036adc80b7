"""Mirrors broker/token.py."""

import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from demo.silicon.mint import DEBUG, POLICY
from strongroom.broker import token
from strongroom.broker.proof import Proof
from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.wire.canonical import JSON, b64u, pack_json, unb64u
from tests.fakes.broker import NOW
from tests.fakes.silicon import silicon

KEY = ec.derive_private_key(99, ec.SECP256R1())
PUBLIC = KEY.public_key()


def claims(*, policy: int = POLICY, simulated: bool = False) -> dict[str, JSON]:
    report = SNPReport.parse(silicon(policy=policy).report(bytes(64)))
    proof = Proof(report, CertificateTable(), bytes(48))
    return token.claims(proof, runtime={"nonce": "n", "tee-pubkey": {}}, simulated=simulated, now=NOW)


def cpu(value: dict[str, JSON]) -> dict[str, object]:
    cpu: dict[str, object] = json.loads(pack_json(value))["submods"]["cpu0"]
    return cpu


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
    assert cpu(claims(policy=POLICY | DEBUG))["ear.status"] == "contraindicated"


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


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "..", "x" * 70_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="token"):
        token.check(text, PUBLIC, now=NOW)


@pytest.mark.parametrize(
    "value", [{}, {"iat": 0, "exp": 1 << 40}, {"iat": True, "exp": 5, "eat_profile": token.PROFILE}]
)
def test_claims_of_another_shape_are_refused(value: dict[str, JSON]) -> None:
    with pytest.raises(FormatError, match="not as issued here"):
        token.check(token.issue(value, KEY), PUBLIC, now=NOW)
