"""Mirrors host/brokerage/metrics.py."""

from strongroom.host.brokerage.metrics import Metrics


def test_the_text_is_prometheus() -> None:
    metrics = Metrics()
    metrics.counter("a_total", "As.", {"kind": "x"})
    metrics.counter("b_total", "Bs.", {})
    metrics.gauge("open", "Open ones.", lambda: 3)
    metrics.times("took_seconds", "How long.")
    metrics.count("a_total", kind='we"ird\\\n')
    metrics.count("b_total")
    metrics.observe("took_seconds", 0.004, path="auth")
    metrics.observe("took_seconds", 9.0, path="auth")
    lines = metrics.text().splitlines()
    assert lines[:4] == [
        "# HELP a_total As.",
        "# TYPE a_total counter",
        'a_total{kind="we\\"ird\\\\\\n"} 1',
        'a_total{kind="x"} 0',
    ]
    assert "b_total 1" in lines and "open 3" in lines
    assert 'took_seconds_bucket{path="auth",le="0.0025"} 0' in lines
    assert 'took_seconds_bucket{path="auth",le="0.005"} 1' in lines
    assert 'took_seconds_bucket{path="auth",le="2.5"} 1' in lines
    assert 'took_seconds_bucket{path="auth",le="+Inf"} 2' in lines
    assert 'took_seconds_sum{path="auth"} 9.004000' in lines
    assert 'took_seconds_count{path="auth"} 2' in lines
    assert metrics.text().endswith("\n")
