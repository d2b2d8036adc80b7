"""Mirrors guest/coco/rules.py and plan.py."""

from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from guest.coco.plan import Plan
from guest.coco.rules import Granted, Right, Rule, Rules
from guest.keysock.rights import Caller
from strongroom.errors import FormatError, PolicyError
from strongroom.wire.canonical import JSON, pack_json, parse_json

API: Final = Rule(resources=("default/db/",), allow=frozenset({Right.EVIDENCE}))
USER: Final = Rule(resources=("default/app/key",))
RULES: Final = Rules(units={"api.service": API}, uids={1000: USER})


def test_a_unit_has_its_rule_and_a_uid_is_for_who_has_no_unit() -> None:
    assert RULES.of(Caller(uid=0, unit="api.service")).rule is API
    assert RULES.of(Caller(uid=1000)).rule is USER
    for caller in (Caller(uid=1000, unit="other.service"), Caller(uid=1001)):
        assert RULES.of(caller).rule == Rule()


def test_a_refusal_names_the_rule_that_is_missing() -> None:
    granted = RULES.of(Caller(uid=5, unit="other.service"))
    with pytest.raises(
        PolicyError, match=r"^other\.service: no rule allows token, want one in .* unit: other"
    ):
        granted.require(Right.TOKEN)
    with pytest.raises(PolicyError, match=r"lists resource 'a/b/c', .* resources: \['a/b/c'\]$"):
        granted.require_resource("a/b/c")
    Granted(Caller(uid=1), API).require(Right.EVIDENCE)
    Granted(Caller(uid=1), API).require_resource("default/db/x")


def test_what_anybody_may_have() -> None:
    assert RULES.covers("default/db/x") and RULES.covers("default/app/key")
    assert not RULES.covers("default/app/keys") and not RULES.covers("default/dbx/x")
    assert RULES.allows(Right.EVIDENCE) and not RULES.allows(Right.TOKEN)


def test_a_plan_comes_back() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    for plan in (Plan(), Plan(rules=RULES, port=8006, signers={"a": key})):
        found = Plan.parse(plan.pack())
        assert (found.rules, found.port) == (plan.rules, plan.port)
        assert found.signers.keys() == plan.signers.keys()
        assert found.pack() == plan.pack()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"rules": {}},
        {"rules": {"units": {}, "uids": {}, "more": {}}},
        {"rules": {"units": {"a": {"resources": []}}, "uids": {}}},
        {"port": "8006"},
        {"signers": []},
        {"signers": {"a": {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}}},
        {"short": 32},
        {"more": 1},
    ],
)
def test_another_plan_is_refused(change: dict[str, JSON]) -> None:
    value = parse_json(Plan(rules=RULES, port=8006).pack(), "plan")
    assert isinstance(value, dict)
    with pytest.raises(FormatError):
        Plan.parse(pack_json({**value, **change}))
