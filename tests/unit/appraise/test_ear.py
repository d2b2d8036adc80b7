"""Mirrors strongroom/appraise/ear.py."""

from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.appraise.ear import ear_claims, status, vector
from strongroom.appraise.policy import Policy
from strongroom.appraise.result import Aspect, Result
from strongroom.appraise.verdict import appraise
from strongroom.verify.claims import Claims
from strongroom.wire.canonical import pack_json
from tests.fakes.composite import NOW, bundle, gpus, verify
from tests.fakes.nvidia import DRIVER
from tests.unit.appraise.test_sections import policy
from tests.unit.appraise.test_verdict import CLAIMS, POLICY

MACHINE: Final = verify(bundle("tdx", devices=gpus(), tpm=True))


def ear(claims: Claims, wanted: Policy) -> dict[str, Any]:
    made = ear_claims(appraise(claims, wanted, now=NOW), claims, policy_id="policy 1", now=NOW)
    pack_json(made)
    return made


def test_a_genuine_machine_that_passed_is_affirming() -> None:
    made = ear(CLAIMS, POLICY)
    assert made["exp"] - made["iat"] == 300
    assert [*made["submods"]] == ["cpu0"]
    cpu = made["submods"]["cpu0"]
    assert cpu["ear.status"] == "affirming"
    assert cpu["ear.trustworthiness-vector"] == {
        "hardware": 2,
        "configuration": 2,
        "executables": 3,
        "file-system": 2,
    }
    assert cpu["ear.appraisal-policy-id"] == "policy 1"
    assert cpu["ear.strongroom.reasons"] == []
    assert cpu["ear.strongroom.not-checked"] == ["revocation of the ask: no revocation list given"]


@pytest.mark.parametrize(
    ("change", "aspect", "value"),
    [
        ({"product": "Milan"}, "hardware", 97),
        ({"measurement": bytes(48)}, "executables", 96),
        pytest.param({"debug": True}, "configuration", 96, marks=pytest.mark.guarantee("G6")),
        ({"events": None}, "file-system", 96),
    ],
)
def test_a_refusal_is_never_a_warning(change: dict[str, Any], aspect: str, value: int) -> None:
    cpu = ear(replace(CLAIMS, **change), POLICY)["submods"]["cpu0"]
    assert cpu["ear.trustworthiness-vector"][aspect] == value
    assert cpu["ear.status"] == "contraindicated"
    assert cpu["ear.strongroom.reasons"]


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_contraindicated_also_where_a_policy_accepts_it() -> None:
    accepted = Policy.from_raw(policy())
    assert appraise(MACHINE, accepted, now=NOW).passed
    made = ear(MACHINE, accepted)
    assert [*made["submods"]] == ["cpu0", "gpu0"]
    for submodule in made["submods"].values():
        assert submodule["ear.trustworthiness-vector"]["hardware"] == 97
        assert submodule["ear.status"] == "contraindicated"
    assert (
        made["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tdx"]["silicon"] == "INSECURE-SIMULATED"
    )


@pytest.mark.guarantee("G19")
def test_what_the_agent_says_of_gpus_stands_with_them_as_its_word() -> None:
    assert MACHINE.gpu_state is not None
    spied = replace(MACHINE, gpu_state=replace(MACHINE.gpu_state, devtools=1))
    gpu = ear(spied, Policy.from_raw(policy()))["submods"]["gpu0"]
    assert gpu["ear.veraison.annotated-evidence"]["nvml-by-agent"] == {
        "cc-mode": "on",
        "devtools": "on",
        "environment": "production",
        "driver-version": DRIVER,
        "ready-flag": "clear",
    }
    assert gpu["ear.strongroom.reasons"] == ["gpu devtools is on, by the agent's word, want off"]
    assert gpu["ear.trustworthiness-vector"]["configuration"] == 96
    silent = ear(replace(MACHINE, gpu_state=None), Policy.from_raw(policy()))["submods"]["gpu0"]
    assert [*silent["ear.veraison.annotated-evidence"]] == ["nvidia"]
    assert silent["ear.status"] == "contraindicated"


def test_a_missing_gpu_counts_against_the_machine() -> None:
    none = verify(bundle("tdx", tpm=True))
    made = ear(none, Policy.from_raw(policy()))
    assert [*made["submods"]] == ["cpu0"]
    assert "gpus is 0, want 1" in made["submods"]["cpu0"]["ear.strongroom.reasons"]


def test_tiers_and_what_nobody_checked() -> None:
    assert vector([]) == dict.fromkeys(Aspect, 0)
    assert status(vector([])) == "none"
    good, bad = (
        Result("x", True, "a", "a", Aspect.EXECUTABLES),
        Result("y", False, "a", "b", Aspect.EXECUTABLES),
    )
    assert status(vector([good])) == "affirming"
    assert status(vector([bad, good])) == status(vector([good, bad])) == "contraindicated"
    assert [status({Aspect.HARDWARE: n}) for n in (1, 2, 31, 32, 95, 96)] == [
        "none",
        "affirming",
        "affirming",
        "warning",
        "warning",
        "contraindicated",
    ]
