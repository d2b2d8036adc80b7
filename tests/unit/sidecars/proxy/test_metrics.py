"""Mirrors sidecars/proxy/metrics.py."""

import re
from dataclasses import replace

import pytest

from sidecars.proxy.metrics import Cause, Histogram, Metrics, Now
from sidecars.proxy.plan import Tenant
from sidecars.proxy.tenants.admission import Admission
from tests.unit.sidecars.proxy.tenants.test_admission import ANN, PLAN

SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? (-?[0-9.]+)')


def admission(*tenants: Tenant) -> Admission:
    return Admission(replace(PLAN, tenants=tenants), salt_key=bytes(32), since=0)


def shown(metrics: Metrics, *tenants: Tenant) -> dict[str, float]:
    """Every sample by name and labels; the text's form is checked on the way."""
    inside = admission(*tenants)
    if tenants:
        inside.spent(tenants[0], prompt=3, completion=4)
    text = metrics.render(Now(state="open", connections=2, admission=inside, evidence_age=61.7)).decode()
    assert text.endswith("\n") and not text.endswith("\n\n")
    samples: dict[str, float] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split()[2]
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match and match[1].startswith(family), line
            samples[match[1].removeprefix("strongroom_door_") + (match[2] or "")] = float(match[4])
    return samples


def test_what_happened_is_counted() -> None:
    metrics = Metrics()
    metrics.requested("/v1/models", 200)
    metrics.requested("/v1/models", 200)
    metrics.requested("-", 404)
    metrics.received(100)
    metrics.sent(7)
    metrics.sent(8)
    metrics.aborted(Cause.CLIENT)
    metrics.signed("ed25519")
    metrics.stream_began()
    metrics.stream_began()
    metrics.stream_ended()
    samples = shown(metrics, ANN)
    assert samples['requests_total{route="/v1/models",status="200"}'] == 2
    assert samples['requests_total{route="-",status="404"}'] == 1
    assert samples['body_bytes_total{direction="received"}'] == 100
    assert samples['body_bytes_total{direction="sent"}'] == 15
    assert samples['aborts_total{cause="client_left"}'] == 1
    assert samples['signatures_total{algorithm="ed25519"}'] == 1
    assert (samples["streams"], samples["connections"]) == (1, 2)
    assert samples['state{state="open"}'] == 1
    assert samples["evidence_age_seconds"] == 61
    assert (samples["completions_running"], samples["completions_waiting"]) == (0, 0)
    assert samples['tokens_total{kind="prompt"}'] == 3
    assert samples['tokens_total{kind="completion"}'] == 4


def test_a_histogram_counts_up_to_each_edge() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 3.0):
        histogram.observe(seconds)
    assert list(histogram.lines("x")) == [
        'x_bucket{le="0.1"} 2',
        'x_bucket{le="1"} 3',
        'x_bucket{le="+Inf"} 4',
        "x_sum 3.650",
        "x_count 4",
    ]


def test_times_of_streams() -> None:
    metrics = Metrics()
    metrics.first_token(0.2)
    metrics.gap(0.02)
    metrics.gap(0.03)
    samples = shown(metrics)
    assert samples['first_token_seconds_bucket{le="0.1"}'] == 0
    assert samples['first_token_seconds_bucket{le="0.25"}'] == 1
    assert samples["token_gap_seconds_count"] == 2
    assert samples["token_gap_seconds_sum"] == pytest.approx(0.05)


@pytest.mark.guarantee("G14")
def test_no_tenant_is_named_unless_the_plan_says_so() -> None:
    tenant = replace(ANN, name="secret-customer")
    inside = Now(state="open", connections=0, admission=admission(tenant), evidence_age=0)
    assert b"secret-customer" not in Metrics().render(inside)
    samples = shown(Metrics(tenants=True), tenant)
    assert samples['tokens_total{kind="prompt",tenant="secret-customer"}'] == 3
    assert samples['completions_total{tenant="secret-customer"}'] == 0


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    strange = replace(ANN, name='a"} 1\nb\\')
    inside = Now(state="open", connections=0, admission=admission(strange), evidence_age=0)
    assert rb'{tenant="a\"} 1\nb\\"} 0' in Metrics(tenants=True).render(inside)
