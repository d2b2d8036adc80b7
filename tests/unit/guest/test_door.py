"""Mirrors guest/door.py: what userdata may say of the door, and that the door understands what it is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from guest.config import parse
from guest.door import Door
from guest.userdata import Userdata
from sidecars.proxy.plan import (
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
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.certified import Certified
from tests.fakes.exchange import ENGINE, MODEL
from tests.unit.guest.test_config import DIGEST, good

ANN, BOB = Certified.make("ann"), Certified.make("bob")
EVERYTHING: dict[str, Any] = {
    "port": 8443,
    "names": ["llm.example"],
    "tenants": [
        {"name": "token", "token_sha256": DIGEST},
        {"name": "certificate", "certificate": ANN.pem, "limits": {"tokens_per_minute": 5}},
        {"name": "both", "token_sha256": "cd" * 32, "certificate": BOB.pem, "aggregator": True, "limits": {}},
    ],
    "cache": "request",
    "limits": {"requests_per_minute": 60, "tokens_per_minute": 100_000, "concurrent": 8},
    "queue": {"length": 0, "seconds": 3},
    "metrics": {"tenants": True, "port": 9464},
    "stream": {"pad": 256, "batch_ms": 50},
    "receipts": {"hybrid": True, "keep": 5000},
    "canary": {"every_s": 30, "expect": [1, 2, 3]},
    "page": {"title": " A model für alle "},
}


def read(door: dict[str, Any]) -> Door:
    raw = b"#cloud-config\n" + yaml.safe_dump({"strongroom": {**good(), "door": door}}).encode()
    return parse(Userdata.of(raw)).door


def told(door: Door, *, sequences: int = 16) -> Plan:
    """What the door reads in the credential that is made of this."""
    settings: dict[str, JSON] = {
        "listen_host": "0.0.0.0",
        "engine_socket": "/engine",
        "evidence_socket": "/evidence",
        "model": MODEL.to_json(),
        "engine": ENGINE.to_json(),
        **door.settings(sequences=sequences),
    }
    return Plan.parse(pack_json(settings))


def test_the_door_is_told_what_userdata_says() -> None:
    plan = told(read(EVERYTHING))
    assert (plan.listen_port, plan.names, plan.cache) == (8443, ("llm.example",), "request")
    assert plan.limits == Limits(requests_per_minute=60, tokens_per_minute=100_000, concurrent=8)
    assert plan.queue == QueuePlan(places=15, length=0, seconds=3)
    assert plan.metrics == MetricsPlan(tenants=True, port=9464)
    assert plan.stream == StreamPlan(pad=256, batch_ms=50)
    assert plan.receipts == ReceiptPlan(hybrid=True, keep=5000)
    assert plan.canary == CanaryPlan(every_s=30, expect=(1, 2, 3))
    assert plan.page == PagePlan(title="A model für alle")
    token, certificate, both = plan.tenants
    assert (token.token_sha256, token.certificate) == (bytes.fromhex(DIGEST), None)
    assert token.limits == plan.limits and not token.aggregator
    assert (certificate.token_sha256, certificate.certificate) == (None, ANN.der)
    assert certificate.limits == Limits(tokens_per_minute=5)
    assert both.token_sha256 and both.certificate == BOB.der and both.aggregator
    assert both.limits == Limits()


def test_what_userdata_leaves_out_is_the_doors_to_know() -> None:
    plan = told(read({"names": ["llm.example"]}), sequences=4)
    assert plan.limits == Limits() and plan.stream == StreamPlan() and plan.receipts == ReceiptPlan()
    assert plan.queue == QueuePlan(places=3, length=64, seconds=10)
    assert (plan.tenants, plan.metrics, plan.canary, plan.page) == (
        (),
        MetricsPlan(),
        CanaryPlan(),
        PagePlan(),
    )


def test_gpus_answer_strangers_only_where_userdata_says_so() -> None:
    """Nobody tells the door: the agent answers, and it would be the one to be asked."""
    names = {"names": ["a.example"]}
    assert read(names).legacy_gpu is False and read({**names, "legacy_gpu": False}).legacy_gpu is False
    asked = read({**names, "legacy_gpu": True})
    assert asked.legacy_gpu is True
    assert asked.settings(sequences=1) == read(names).settings(sequences=1)
    for wrong in (1, "true", None, [True]):
        with pytest.raises(ConfigError, match="legacy_gpu"):
            read({**names, "legacy_gpu": wrong})


def test_places_leave_one_at_the_engine_to_the_canary_and_are_no_more_than_the_door_can() -> None:
    found = [told(read({"names": ["a.example"]}), sequences=n).queue.places for n in (1, 2, 3, 256, 1024)]
    assert found == [1, 1, 2, 255, 256]


ENDS = [
    ("limits", "requests_per_minute", 1, 10_000_000),
    ("limits", "tokens_per_minute", 1, 10_000_000_000),
    ("limits", "concurrent", 1, 1024),
    ("queue", "length", 0, 512),
    ("queue", "seconds", 1, 600),
    ("metrics", "port", 1024, 65535),
    ("stream", "pad", 0, 16384),
    ("stream", "batch_ms", 0, 5000),
    ("receipts", "keep", 1000, 10_000_000),
    ("canary", "every_s", 10, 86400),
]


@pytest.mark.parametrize(("section", "key", "low", "high"), ENDS)
def test_numbers_have_ends_that_the_door_accepts(section: str, key: str, low: int, high: int) -> None:
    for value in (low, high):
        plan = told(read({"names": ["a.example"], section: {key: value}}))
        assert getattr(getattr(plan, section), key) == value
    for wrong in (low - 1, high + 1, True, "1", 1.5, None, [1]):
        with pytest.raises(ConfigError, match=rf"^strongroom\.door\.{section}\.{key}: got "):
            read({"names": ["a.example"], section: {key: wrong}})


BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"extra": {}}, r"door\.extra: unknown key"),
    ({"limits": []}, r"door\.limits: got list, want a mapping"),
    ({"limits": {"places": 1}}, r"door\.limits\.places: unknown key, want one of concurrent, req"),
    ({"queue": {"places": 1}}, r"door\.queue\.places: unknown key"),
    ({"metrics": {"tenants": "yes"}}, r"door\.metrics\.tenants: got 'yes', want true or false"),
    ({"metrics": {"port": 8443}}, r"door\.metrics\.port: got 8443, which is the door's own"),
    ({"receipts": {"hybrid": 1}}, r"door\.receipts\.hybrid: got 1"),
    ({"canary": {"expect": []}}, r"door\.canary\.expect: empty"),
    ({"canary": {"expect": [1] * 65}}, r"door\.canary\.expect: got list, want a list of at most 64"),
    ({"canary": {"expect": [0, -1]}}, r"door\.canary\.expect\[1\]: got -1"),
    ({"page": {"title": ""}}, r"door\.page\.title: got ''"),
    ({"page": {"title": "  "}}, r"door\.page\.title"),
    ({"page": {"title": "a\nb"}}, r"door\.page\.title"),
    ({"page": {"title": "a" * 101}}, r"door\.page\.title"),
    ({"tenants": [{"name": "a"}]}, r"door\.tenants\[0\]\.token_sha256: missing"),
    ({"tenants": [{"name": "a", "certificate": "x"}]}, r"door\.tenants\[0\]\.certificate: got 'x'"),
    ({"tenants": [{"name": "a", "certificate": BROKEN}]}, r"door\.tenants\[0\]\.certificate: not a cert"),
    ({"tenants": [{"name": "a", "certificate": ANN.pem + BOB.pem}]}, r"tenants\[0\]\.certificate: got"),
    (
        {"tenants": [{"name": n, "certificate": ANN.pem} for n in "ab"]},
        r"door\.tenants: certificate .* appears twice",
    ),
    (
        {"tenants": [{"name": "a", "token_sha256": DIGEST, "aggregator": 1}]},
        r"tenants\[0\]\.aggregator: got 1",
    ),
    (
        {"tenants": [{"name": "a", "token_sha256": DIGEST, "limits": {"concurrent": 0}}]},
        r"door\.tenants\[0\]\.limits\.concurrent: got 0",
    ),
    (
        {"tenants": [{"name": "a", "token_sha256": DIGEST, "limits": {"x": 0}}]},
        r"door\.tenants\[0\]\.limits\.x: unknown key",
    ),
]


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_everything_else_is_refused_with_its_key(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        read({"port": 8443, "names": ["a.example"], **change})
    assert "\n" not in str(caught.value)


def test_every_key_of_the_example_in_the_documentation_is_read() -> None:
    """docs/boot.md shows each of the door's keys, and no other."""
    page = (Path(__file__).parents[3] / "docs" / "boot.md").read_text()
    example = page.split("```yaml\n#cloud-config\n")[1].split("```")[0]
    door = yaml.safe_load(example)["strongroom"]["door"]
    assert door.keys() == EVERYTHING.keys() | {"legacy_gpu"}  # which the agent keeps to itself
    for section in ("limits", "queue", "metrics", "stream", "receipts", "canary", "page"):
        assert door[section].keys() == EVERYTHING[section].keys()
    shown = {key for tenant in door["tenants"] for key in tenant}
    assert shown == {key for tenant in EVERYTHING["tenants"] for key in tenant}
