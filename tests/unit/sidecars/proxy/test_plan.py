"""Mirrors sidecars/proxy/plan.py."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.plan import (
    Cache,
    CanaryPlan,
    Limits,
    MetricsPlan,
    PagePlan,
    Plan,
    QueuePlan,
    ReceiptPlan,
    StreamPlan,
)
from strongroom.errors import ConfigError
from tests.fakes.certified import Certified
from tests.fakes.exchange import ENGINE, MODEL

GOOD: dict[str, Any] = {
    "listen_host": "0.0.0.0",
    "listen_port": 443,
    "engine_socket": "/run/strongroom/engine/engine.sock",
    "evidence_socket": "/run/strongroom/evidence.sock",
    "names": ["door.example"],
    "model": MODEL.to_json(),
    "engine": ENGINE.to_json(),
    "tenants": [{"name": "ann", "token_sha256": sha256(b"a").hexdigest()}],
    "cache": "tenant",
}
ANN = Certified.make("ann")


def parse(**change: Any) -> Plan:
    return Plan.parse(json.dumps({**GOOD, **change}).encode())


def test_a_good_credential() -> None:
    plan = parse()
    assert plan.engine_socket == Path(GOOD["engine_socket"])
    assert (plan.model, plan.engine, plan.cache) == (MODEL, ENGINE, Cache.TENANT)
    assert plan.tenants[0].token_sha256 == sha256(b"a").digest()
    assert parse(tenants=[]).tenants == ()


def test_what_is_left_out_has_a_default() -> None:
    plan = parse()
    assert plan.limits == plan.tenants[0].limits == Limits(concurrent=None)
    assert plan.queue == QueuePlan(places=256, length=0, seconds=10)
    assert (plan.metrics, plan.stream) == (
        MetricsPlan(tenants=False, port=None),
        StreamPlan(pad=0, batch_ms=0),
    )
    assert plan.receipts == ReceiptPlan(hybrid=False, keep=1_000_000)
    assert plan.canary == CanaryPlan(every_s=60, expect=None)
    assert plan.page == PagePlan(title="Strongroom")
    assert plan.certificates == ()
    assert parse(limits={}, queue={}, metrics={}, stream={}, receipts={}, canary={}, page={}) == plan


def test_a_section_may_be_given_in_part() -> None:
    plan = parse(queue={"length": 3}, canary={"expect": [5, 0]}, receipts={"hybrid": True})
    assert plan.queue == QueuePlan(length=3)
    assert plan.canary == CanaryPlan(expect=(5, 0))
    assert plan.receipts == ReceiptPlan(hybrid=True)


def test_a_tenant_has_its_own_limits_or_those_of_all() -> None:
    token = GOOD["tenants"][0]
    own = {"name": "own", "certificate": ANN.pem, "limits": {"requests_per_minute": 1}, "aggregator": True}
    plan = parse(tenants=[token, own], limits={"concurrent": 2})
    assert [tenant.limits for tenant in plan.tenants] == [Limits(concurrent=2), Limits(requests_per_minute=1)]
    assert [tenant.aggregator for tenant in plan.tenants] == [False, True]
    assert plan.certificates == (ANN.der,)
    assert plan.tenants[1].token_sha256 is None


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extra": 1}, r"door\.extra: unknown key"),
        ({"listen_host": ""}, r"door\.listen_host"),
        ({"listen_port": 65536}, r"door\.listen_port"),
        ({"listen_port": True}, r"door\.listen_port"),
        ({"engine_socket": "engine.sock"}, "want an absolute path"),
        ({"names": []}, r"door\.names"),
        ({"names": [1]}, r"door\.names"),
        ({"model": {"name": "x"}}, r"door\.model: 'epoch' is missing"),
        ({"engine": []}, r"door\.engine: got list"),
        ({"tenants": {}}, r"door\.tenants"),
        ({"tenants": [{"name": "a"}]}, r"door\.tenants\[0\]: want token_sha256, certificate or both"),
        ({"tenants": ["a"]}, r"door\.tenants\[0\]: got str, want an object"),
        ({"tenants": [{"name": "", "certificate": ANN.pem}]}, r"door\.tenants\[0\]\.name"),
        ({"tenants": [{"name": "a", "certificate": "x"}]}, r"door\.tenants\[0\]\.certificate"),
        ({"tenants": [{"name": "a", "certificate": 7}]}, r"door\.tenants\[0\]\.certificate"),
        (
            {"tenants": [{"name": n, "certificate": ANN.pem} for n in "ab"]},
            "two tenants have one certificate",
        ),
        ({"tenants": [{**GOOD["tenants"][0], "extra": 1}]}, r"door\.tenants\[0\]\.extra: unknown key"),
        (
            {"tenants": [{**GOOD["tenants"][0], "aggregator": "yes"}]},
            r"\[0\]\.aggregator: want true or false",
        ),
        ({"tenants": [{**GOOD["tenants"][0], "limits": {"x": 1}}]}, r"tenants\[0\]\.limits\.x: unknown key"),
        ({"limits": []}, r"door\.limits: got list, want an object"),
        ({"limits": {"concurrent": 0}}, r"door\.limits\.concurrent: want a whole number 1\.\."),
        ({"limits": {"requests_per_minute": True}}, r"door\.limits\.requests_per_minute"),
        ({"limits": {"tokens_per_minute": None}}, r"door\.limits\.tokens_per_minute"),
        ({"queue": {"seconds": 0}}, r"door\.queue\.seconds"),
        ({"queue": {"places": 1 << 20}}, r"door\.queue\.places"),
        ({"metrics": {"port": 80}}, r"door\.metrics\.port"),
        ({"metrics": {"tenants": 1}}, r"door\.metrics\.tenants"),
        ({"stream": {"pad": -1}}, r"door\.stream\.pad"),
        ({"stream": {"batch_ms": "1"}}, r"door\.stream\.batch_ms"),
        ({"receipts": {"keep": 0}}, r"door\.receipts\.keep"),
        ({"canary": {"every_s": 0}}, r"door\.canary\.every_s"),
        ({"canary": {"expect": []}}, r"door\.canary\.expect: want 1\.\.64 tokens"),
        ({"canary": {"expect": [1, True]}}, r"door\.canary\.expect"),
        ({"canary": {"expect": [1] * 65}}, r"door\.canary\.expect"),
        ({"canary": {"expect": None}}, r"door\.canary\.expect"),
        ({"page": {"title": "a\nb"}}, r"door\.page\.title"),
        ({"page": {"title": "a" * 101}}, r"door\.page\.title: got 101 characters"),
        ({"tenants": [{"name": "a", "token_sha256": "AA"}]}, r"door\.tenants\[0\]\.token_sha256"),
        ({"tenants": GOOD["tenants"] * 2}, "a name appears twice"),
        (
            {"tenants": [*GOOD["tenants"], {**GOOD["tenants"][0], "name": "bob"}]},
            "two tenants have one token",
        ),
        ({"cache": "shared"}, r"door\.cache"),
    ],
)
def test_anything_else_is_refused_with_its_key(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(**change)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_every_key_is_needed(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan.parse(json.dumps({k: v for k, v in GOOD.items() if k != key}).encode())
    assert str(caught.value) == f"door.{key}: missing key"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"names":[],"names":[]}'])
def test_what_is_not_one_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^door: "):
        Plan.parse(raw)
