"""Mirrors host/brokerage/keeper.py: real verification and appraisal, over evidence of simulated silicon."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.silicon.mint import DEBUG, POLICY, Silicon
from strongroom.broker import token
from strongroom.broker.desk import Question, Ruling
from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI
from strongroom.errors import VerifyError
from strongroom.evidence.kbs import CompositeEvidence, Digests
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.keeper import HouseKeeper
from strongroom.host.genuine import Verifier
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON, b64
from tests.fakes.house import ALLOW, NOW, OTHER, SECRET, SIGNER_KEY, URI, do, house, put, references, volume
from tests.fakes.kbs import Machine
from tests.fakes.silicon import silicon

DIGEST = bytes(range(48))
DIGESTS = Digests(primary=DIGEST, device=DIGEST)
AT = ResourceURI.parse(URI)
AFFIRMING = """package policy
import rego.v1
default allow := false
allow if {
    every _, submod in input.submods { submod["ear.status"] == "affirming" }
}
"""


def accepting(**change: Any) -> str:
    machine = silicon()
    value: dict[str, Any] = {
        "version": 1,
        "measurements": [{"name": "image-1", "value": machine.measurement.hex()}],
        "host_data": [machine.host_data.hex()],
        "insecure_simulated_roots": [machine.pki.ark_sha256.hex()],
    }
    return json.dumps(value | change)


def proof(machine: Silicon | None = None, digest: bytes = DIGEST) -> Proof:
    primary = Machine(chip=machine or silicon()).primary(digest)
    return Proof(evidence=CompositeEvidence(primary=primary), digests=DIGESTS)


def question(
    uri: str = URI, claims: Mapping[str, JSON] | None = None, query: Mapping[str, str] | None = None
) -> Question:
    return Question(uri=ResourceURI.parse(uri), query=query or {}, claims=claims or {})


@pytest.fixture
def at(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "b") as made:
        put(made, policy=accepting())
        yield made


@pytest.fixture
def keeper(at: House) -> HouseKeeper:
    return HouseKeeper(at)


def ruling(keeper: HouseKeeper, machine: Silicon | None = None, uri: str = URI, **query: str) -> Ruling:
    got = keeper.judge(question(uri, query=query), proof(machine), NOW)
    assert got is not None
    return got


def reasons(keeper: HouseKeeper, machine: Silicon | None = None, uri: str = URI, **query: str) -> str:
    got = ruling(keeper, machine, uri, **query)
    assert got.payload is None
    return "; ".join(got.reasons)


@pytest.mark.guarantee("G1")
def test_the_right_machine_gets_it_and_is_marked(keeper: HouseKeeper) -> None:
    got = ruling(keeper)
    assert (got.payload, got.version) == (SECRET, 1)
    assert got.rule.startswith("policy ") and "INSECURE-SIMULATED" in got.rule
    assert "secret" not in repr(got)
    assert keeper.verify(proof(), NOW).simulated


@pytest.mark.guarantee("G1")
def test_another_measurement_gets_nothing(keeper: HouseKeeper) -> None:
    assert "measurement is " + "ff" * 48 in reasons(keeper, silicon(measurement=b"\xff" * 48))


@pytest.mark.guarantee("G2")
def test_changed_userdata_gets_nothing(keeper: HouseKeeper) -> None:
    got = reasons(keeper, silicon(host_data=b"\xff" * 32))
    assert f"host_data is {'ff' * 32}, want {silicon().host_data.hex()}" in got


@pytest.mark.guarantee("G6")
def test_a_debug_guest_gets_nothing(keeper: HouseKeeper) -> None:
    assert "debug is on, want off" in reasons(keeper, silicon(policy=POLICY | DEBUG))


@pytest.mark.guarantee("G1")
def test_a_new_policy_holds_for_the_next_question(at: House, keeper: HouseKeeper) -> None:
    assert ruling(keeper).payload == SECRET
    do(at, "set-policy", uri=URI, policy=accepting(minimum_tcb={"snp": 24}))
    assert "reported tcb" in reasons(keeper)


@pytest.mark.guarantee("G7")
def test_evidence_for_another_digest_is_not_genuine(keeper: HouseKeeper) -> None:
    other = proof(digest=bytes(48))
    with pytest.raises(VerifyError, match="report_data"):
        keeper.verify(other, NOW)
    got = keeper.judge(question(), other, NOW)
    assert got is not None and got.payload is None and "report_data" in got.reasons[0]


@pytest.mark.guarantee("G18")
def test_one_resource_s_simulated_root_opens_no_other(at: House, keeper: HouseKeeper) -> None:
    put(at, b"strict secret", OTHER, policy=accepting(insecure_simulated_roots=[]))
    assert keeper.verify(proof(), NOW).simulated
    assert reasons(keeper, uri=OTHER)


@pytest.mark.guarantee("G18")
def test_simulated_silicon_that_no_policy_names_is_not_genuine(at: House, keeper: HouseKeeper) -> None:
    do(at, "set-policy", uri=URI, policy=accepting(insecure_simulated_roots=[]))
    with pytest.raises(VerifyError):
        keeper.verify(proof(), NOW)


def test_what_is_not_there_is_none(keeper: HouseKeeper) -> None:
    assert keeper.judge(question(OTHER), proof(), NOW) is None


@pytest.mark.guarantee("G1")
def test_a_revoked_measurement_stops_at_once(at: House, keeper: HouseKeeper) -> None:
    assert ruling(keeper).payload == SECRET
    revoked = silicon().measurement.hex()
    do(at, "revoke", measurement=revoked, reason="advisory 7")
    assert reasons(keeper) == f"measurement {revoked} is revoked: advisory 7"
    do(at, "reinstate", measurement=revoked, reason="a mistake")
    assert ruling(keeper).payload == SECRET


@pytest.mark.guarantee("G5")
def test_versions_and_epochs(at: House, keeper: HouseKeeper) -> None:
    put(at, volume(2, b"\1" * 32), uri=OTHER, policy=accepting())
    put(at, volume(3, b"\2" * 32), uri=OTHER, policy=accepting())
    assert (ruling(keeper, uri=OTHER).payload, ruling(keeper, uri=OTHER).version) == (
        volume(3, b"\2" * 32),
        2,
    )
    assert ruling(keeper, uri=OTHER, version="1").payload == volume(2, b"\1" * 32)
    do(at, "revoke", uri=OTHER, epoch=2, reason="leaked")
    assert ruling(keeper, uri=OTHER).payload == volume(3, b"\2" * 32)
    assert reasons(keeper, uri=OTHER, version="1") == "version 1 is of epoch 2, which is revoked: leaked"
    do(at, "revoke", uri=OTHER, epoch=3, reason="leaked too")
    assert (
        reasons(keeper, uri=OTHER)
        == "resource has no version to release, want an epoch after 3, which is revoked"
    )
    do(at, "rotate", uri=OTHER, payload=b64(volume(4)))
    assert ruling(keeper, uri=OTHER).version == 3


@pytest.mark.parametrize("version", ["0", "9", "-1", "1.0", "01", "x", "1,1", "9" * 30, "\n1"])
def test_a_version_that_is_not_there(keeper: HouseKeeper, version: str) -> None:
    assert "does not exist" in reasons(keeper, version=version)


def test_a_wish_we_do_not_know_is_refused(keeper: HouseKeeper) -> None:
    assert reasons(keeper, newest="1") == "query 'newest' is unknown, want version=NUMBER or none"


@pytest.mark.guarantee("G1")
def test_reference_values_run_out(at: House, keeper: HouseKeeper) -> None:
    measurements = [{"kind": "snp", "name": "image-1", "value": silicon().measurement.hex()}]
    until = int((NOW + timedelta(hours=1)).timestamp())
    file = references(measurements=measurements, not_after=until)
    do(at, "import-references", file=file, signer=SIGNER_KEY)
    text = json.loads(accepting(reference_values=["my-image"]))
    del text["measurements"]
    do(at, "set-policy", uri=URI, policy=json.dumps(text))
    assert ruling(keeper).payload == SECRET
    late = keeper.judge(question(), proof(), NOW + timedelta(hours=1))
    assert late is not None and late.payload is None
    assert "my-image is not there or holds no more, and nothing else is accepted" in late.reasons[0]


def genuine(proof: Proof, roots: Roots, now: datetime) -> Claims:
    """As if the chip were AMD's: what simulated silicon can never be, for what a policy makes of it."""
    real = Verifier()(proof, roots.with_insecure([silicon().pki.ark_sha256]), now)
    return replace(real, simulated=False, simulated_roots=frozenset())


@pytest.mark.guarantee("G1")
def test_rego_decides_over_the_token(at: House) -> None:
    pytest.importorskip("regopy")
    keeper = HouseKeeper(at, genuine)
    do(at, "set-policy", uri=URI, rego=ALLOW)
    told = token.claims(proof(), keeper.verify(proof(), NOW), runtime={}, now=NOW)
    got = keeper.judge(question(claims=told), proof(), NOW)
    assert got is not None and got.payload == SECRET
    got = keeper.judge(question(claims={"submods": {}}), proof(), NOW)
    assert got is not None and got.reasons == ("rego policy: allow is undefined, want true",)
    do(at, "set-policy", uri=URI, rego=AFFIRMING)  # a token says no more than that it is genuine
    got = keeper.judge(question(claims=told), proof(), NOW)
    assert got is not None and got.payload is None


@pytest.mark.guarantee("G1")
def test_rego_beside_a_policy_sees_what_that_found(at: House) -> None:
    pytest.importorskip("regopy")
    keeper = HouseKeeper(at, genuine)
    do(at, "set-policy", uri=URI, policy=accepting(), rego=AFFIRMING)
    told = token.claims(proof(), keeper.verify(proof(), NOW), runtime={}, now=NOW)
    got = keeper.judge(question(claims=told), proof(), NOW)
    assert got is not None and (got.reasons, got.payload) == ((), SECRET)
    other = proof(silicon(measurement=b"\xff" * 48))
    got = keeper.judge(question(claims=told), other, NOW)
    assert got is not None and len(got.reasons) == 2  # both say no


@pytest.mark.guarantee("G18")
def test_rego_never_calls_simulated_silicon_affirming(at: House, keeper: HouseKeeper) -> None:
    pytest.importorskip("regopy")
    do(at, "set-policy", uri=URI, policy=accepting(), rego=AFFIRMING)
    told = token.claims(proof(), keeper.verify(proof(), NOW), runtime={}, now=NOW)
    got = keeper.judge(question(claims=told), proof(), NOW)
    assert got is not None and got.reasons == ("rego policy: allow is undefined, want true",)
    do(at, "set-policy", uri=URI, rego=ALLOW)  # alone it names no simulated root
    assert reasons(keeper)


@pytest.mark.guarantee("G1")
def test_rego_alone_releases_to_no_debug_guest(at: House) -> None:
    def debugged(shown: Proof, roots: Roots, now: datetime) -> Claims:
        return replace(Verifier()(shown, roots.with_insecure({silicon().pki.ark_sha256}), now), debug=True)

    do(at, "set-policy", uri=URI, rego=ALLOW)
    got = HouseKeeper(at, debugged).judge(question(), proof(), NOW)
    assert got is not None and got.payload is None
    assert "debug is on, want a guest its host cannot look into" in got.reasons
