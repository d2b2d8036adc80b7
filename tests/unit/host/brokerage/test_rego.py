"""Mirrors host/brokerage/rego.py, over Trustee's resource policies as they are published."""

import re
import sys
from typing import Any

import pytest

from strongroom.errors import ConfigError
from strongroom.host.brokerage.rego import check_rego, rego_refusal
from strongroom.wire.canonical import JSON

pytest.importorskip("regopy")

# The shapes of confidential-containers/trustee's kbs/sample_policies, in words of ours.
NO_SAMPLE = """package policy
import rego.v1

default allow = false

allow if {
    data["plugin"] == "resource"
    not input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["sample"]
}
"""
AFFIRMING = """package policy
import rego.v1

default allow := false

allow if {
    every _, submod in input.submods {
        submod["ear.status"] == "affirming"
    }
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
DATA: dict[str, JSON] = {"plugin": "resource", "resource-path": ["default", "model", "llama"], "query": {}}


def claims(status: str = "affirming", gpu: str | None = None, tee: str = "snp") -> dict[str, Any]:
    evidence = {tee: {"measurement": "00" * 48}, "runtime_data_claims": {"nonce": "x"}}
    cpu = {"ear.status": status, "ear.veraison.annotated-evidence": evidence}
    gpus = {} if gpu is None else {"gpu0": {"ear.status": gpu}}
    return {"eat_profile": "tag:x", "iat": 1795176000, "submods": {"cpu0": cpu, **gpus}}


@pytest.mark.parametrize("source", [NO_SAMPLE, AFFIRMING, PATHS])
def test_it_allows_what_it_should(source: str) -> None:
    check_rego(source, "rego")
    assert rego_refusal(source, claims(), DATA) is None


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("source", "told", "data"),
    [
        (NO_SAMPLE, claims(tee="sample"), DATA),
        (NO_SAMPLE, claims(), {**DATA, "plugin": "other"}),
        (AFFIRMING, claims("warning"), DATA),
        (AFFIRMING, claims("contraindicated"), DATA),
        (AFFIRMING, claims("affirming", gpu="warning"), DATA),
        (PATHS, claims(), {**DATA, "resource-path": ["default", "model", "other"]}),
        (PATHS, claims("warning"), DATA),
        (PATHS, {}, DATA),
    ],
)
def test_it_denies_what_it_should(source: str, told: dict[str, Any], data: dict[str, JSON]) -> None:
    assert rego_refusal(source, told, data) in (
        "rego policy: allow is undefined, want true",
        "rego policy: allow is false, want true",
    )


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
