"""Mirrors host/brokerage/rego.py, over Trustee's resource policies as they are published."""

import os
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.desk import Question, Ruling
from strongroom.broker.proof import Finding, Proof
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError
from strongroom.evidence.kbs import KBSTee
from strongroom.host.brokerage.rego import check_rego, rego_refusal
from strongroom.host.genuine import Verifier, finding
from strongroom.verify.roots import PRODUCTION
from strongroom.wire.canonical import JSON
from tests.fakes.broker import Guest, ToldKeeper, desk
from tests.fakes.kbs import Machine
from tests.fakes.silicon import silicon

pytest.importorskip("regopy")

# The shapes of confidential-containers/trustee's published policies (kbs/sample_policies, and those its engine is
# tested with), rule by rule, in words of ours. TRUSTEE=DIR names a checkout whose own files are evaluated too.
NO_SAMPLE = """package policy

default allow = false

kind = data.plugin

allow if {
\tkind == "resource"
\tnot input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["sample"]
}
"""
AFFIRMING = """package policy
import rego.v1

default allow = false

allow if {
    not one_is_not
    count(input.submods) > 0
}

one_is_not if {
    some _, module in input.submods
    module["ear.status"] != "affirming"
}
"""
EVERY = """package policy
import rego.v1

default allow := false

allow if {
    every _, submod in input.submods {
        submod["ear.status"] == "affirming"
    }
}
"""
ANY_RESOURCE = """package policy

default allow = false

kind = data.plugin

allow if {
\tkind == "resource"
}
"""
NOTHING = """# Some words before it.
#
# And more of them.

package policy

default allow = false
"""
EVERYTHING = "package policy\ndefault allow = true"
BY_PATH = """





package policy

default allow = false

level := input["tcb-status"]

allow if {
    count(data["resource-path"]) == 3
    data.plugin == "resource"



    input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]["measurement"] == data["resource-path"][1]
}





"""
LEVELS = """package policy

# As the second version of the language wants it.
import rego.v1

default allow := false


# what each one wants
wanted := {"llama": 2, "other": 30}

allow if {
    input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]

    data.plugin == "resource"

    data["resource-path"][0] == "default"
    data["resource-path"][1] == "model"
    found := input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]
    wanted[data["resource-path"][2]] <= found["reported_tcb_snp"]

}
"""
PATHS = """package policy
default allow = false
path := concat("/", data["resource-path"])
allow {
    path == "default/model/llama"
    input["submods"]["cpu0"]["ear.status"] == "affirming"
}
"""
SIMULATED = PRODUCTION.with_insecure(frozenset({silicon().pki.ark_sha256}))
DENIED = {
    f"rego policy: allow is {found}, want true" for found in ("false", "undefined")
}  # as the library has it
TRUSTEE = os.environ.get("TRUSTEE", "")
DATA: dict[str, JSON] = {"plugin": "resource", "resource-path": ["default", "model", "llama"], "query": {}}


def claims(status: str = "affirming", gpu: str | None = None, tee: str = "snp") -> dict[str, Any]:
    evidence = {tee: {"measurement": "00" * 48}, "runtime_data_claims": {"nonce": "x"}}
    cpu = {"ear.status": status, "ear.veraison.annotated-evidence": evidence}
    gpus = {} if gpu is None else {"gpu0": {"ear.status": gpu}}
    return {"eat_profile": "tag:x", "iat": 1795176000, "submods": {"cpu0": cpu, **gpus}}


@pytest.mark.parametrize("source", [NO_SAMPLE, AFFIRMING, EVERY, ANY_RESOURCE, EVERYTHING, PATHS])
def test_it_allows_what_it_should(source: str) -> None:
    check_rego(source, "rego")
    assert rego_refusal(source, claims(), DATA) is None


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("source", "told", "data"),
    [
        (NO_SAMPLE, claims(tee="sample"), DATA),
        (NO_SAMPLE, claims(), {**DATA, "plugin": "other"}),
        (NOTHING, claims(), DATA),
        (ANY_RESOURCE, claims(), {**DATA, "plugin": "other"}),
        (AFFIRMING, {"submods": {}}, DATA),
        (EVERY, claims("warning"), DATA),
        (EVERY, claims("affirming", gpu="warning"), DATA),
        (AFFIRMING, claims("warning"), DATA),
        (AFFIRMING, claims("contraindicated"), DATA),
        (AFFIRMING, claims("affirming", gpu="warning"), DATA),
        (PATHS, claims(), {**DATA, "resource-path": ["default", "model", "other"]}),
        (PATHS, claims("warning"), DATA),
        (PATHS, {}, DATA),
    ],
)
def test_it_denies_what_it_should(source: str, told: dict[str, Any], data: dict[str, JSON]) -> None:
    assert rego_refusal(source, told, data) in DENIED


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('allow := "true"', 'allow is "true", want true'),
        ("allow := 1", "allow is 1, want true"),
        ("allow := [true]", r"allow is \[true\], want true"),
        ("allow := null", "allow is null, want true"),
        ("allow contains x if x := true", r"allow is \[true\], want true"),
        ("allow := true if input.nothing", "allow is undefined"),
        ("allow := 1 / 0 == 1", "allow is undefined|failed"),
    ],
)
def test_only_true_allows(body: str, found: str) -> None:
    source = f"package policy\nimport rego.v1\n{body}\n"
    refusal = rego_refusal(source, claims(), DATA)
    assert refusal is not None
    assert re.search(found, refusal)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "no `allow`|"),
        ("package policy\nallow if {", "unclosed"),
        ("not rego at all {{{", "rego"),
        ("package other\nallow := true", "no `allow` in `package policy`"),
        ("package policy\nx := true", "no `allow`"),
        ("#" * (256 * 1024 + 1), "longer than 262144 bytes"),
    ],
)
def test_what_could_never_allow_is_refused_when_it_is_put(source: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"rego of x: .*({why})"):
        check_rego(source, "rego of x")


def test_a_broken_policy_denies() -> None:
    assert rego_refusal("package policy\nallow if {", claims(), DATA) == "rego policy failed: RegoError"


def test_without_the_interpreter_everything_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regopy", None)
    assert (
        rego_refusal(AFFIRMING, claims(), DATA)
        == "rego policy: regopy is not installed, want strongroom[rego]"
    )
    with pytest.raises(ConfigError, match="not installed"):
        check_rego(AFFIRMING, "rego")


def test_one_question_leaves_nothing_for_the_next(capfd: pytest.CaptureFixture[str]) -> None:
    assert rego_refusal(AFFIRMING, claims(), DATA) is None
    assert rego_refusal(AFFIRMING, claims("warning"), DATA) is not None
    assert rego_refusal(AFFIRMING, claims(), DATA) is None
    assert rego_refusal("package policy\nallow if {", claims(), DATA)
    assert capfd.readouterr() == ("", "")  # the interpreter would have told our terminal


def token_of(tee: KBSTee, path: tuple[str, str, str], *, query: str = "") -> tuple[Any, dict[str, JSON]]:
    """The claims of a token of ours, and what a policy is told beside them."""
    asked: list[Question] = []

    class Asked(ToldKeeper):
        def verify(self, proof: Proof, now: datetime) -> Finding:
            return finding(Verifier()(proof, SIMULATED, now))

        def judge(self, question: Question, proof: Proof, now: datetime) -> Ruling | None:
            asked.append(question)
            return Ruling("policy 00", payload=b"x")

    guest = Guest.on(Machine(tee=tee), uri=ResourceURI(*path))
    guest.obtain(desk(Asked()))
    uri = asked[0].uri
    return asked[0].claims, {**DATA, "resource-path": [uri.repository, uri.type, uri.tag]}


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        (NO_SAMPLE, True),
        (ANY_RESOURCE, True),
        (EVERYTHING, True),
        (NOTHING, False),
        (AFFIRMING, False),  # a token says that it is genuine, and simulated at that
        (EVERY, False),
        (LEVELS, True),
    ],
    ids=["no sample", "any resource", "everything", "nothing", "affirming", "every", "levels"],
)
def test_a_token_of_ours_is_read(source: str, allowed: bool) -> None:
    told, data = token_of("snp", ("default", "model", "llama"))
    check_rego(source, "rego")
    refusal = rego_refusal(source, told, data)
    assert (refusal is None) is allowed, refusal
    assert allowed or refusal in DENIED


@pytest.mark.parametrize("tag", ["other", "unknown"])
def test_levels_are_compared_as_numbers(tag: str) -> None:
    told, data = token_of("snp", ("default", "model", tag))
    assert rego_refusal(LEVELS, told, data) in DENIED


def test_evidence_decides_by_the_path() -> None:
    measurement = silicon().measurement.hex()
    told, data = token_of("snp", ("default", measurement, "key"))
    assert rego_refusal(BY_PATH, told, data) is None
    told, data = token_of("snp", ("default", "00" * 48, "key"))
    assert rego_refusal(BY_PATH, told, data) in DENIED


@pytest.mark.skipif(not TRUSTEE, reason="TRUSTEE=DIR names no checkout of Trustee")
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("kbs/sample_policies/affirming.rego", False),
        ("kbs/sample_policies/allow_all.rego", True),
        ("kbs/sample_policies/default.rego", True),
        ("kbs/sample_policies/deny_all.rego", False),
        (
            "deps/policy-engine/test_data/policy_1.rego",
            False,
        ),  # these want a sample, which is no evidence here
        ("deps/policy-engine/test_data/policy_2.rego", True),
        ("deps/policy-engine/test_data/policy_3.rego", False),
        ("deps/policy-engine/test_data/policy_4.rego", False),
        ("deps/policy-engine/test_data/policy_5.rego", False),
    ],
)
def test_a_policy_of_trustee_as_it_is(name: str, allowed: bool) -> None:
    source = (Path(TRUSTEE) / name).read_text()
    told, data = token_of("snp", ("default", "model", "llama"))
    if "allow" in source.replace("default allow", ""):
        check_rego(source, "rego")
    assert (rego_refusal(source, told, data) is None) is allowed
    if name.endswith("affirming.rego"):
        assert rego_refusal(source, claims(), data) is None
