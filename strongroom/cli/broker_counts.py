"""What a broker counts and shows: the names and words of its metrics."""

from collections.abc import Sized

from strongroom.broker.audit import Outcome
from strongroom.broker.sessions import Sessions
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.metrics import Metrics


def counts_of(house: House, sessions: Sessions, gate: Sized) -> Metrics:
    """Everything a broker counts, declared and at zero."""
    metrics = Metrics()
    metrics.counter("strongroom_broker_requests_total", "Requests answered, by path and status.")
    metrics.counter(
        "strongroom_broker_decisions_total",
        "Lines of the audit log, by verdict.",
        *({"verdict": outcome.value} for outcome in Outcome),
    )
    metrics.counter("strongroom_broker_summarised_total", "Refusals that have no line of their own.", {})
    metrics.counter("strongroom_broker_limited_total", "Requests refused for their number.", {})
    metrics.counter("strongroom_broker_unrecorded_total", "Decisions that could not be recorded.", {})
    metrics.times("strongroom_broker_request_seconds", "Time from a request's head to its answer.")
    metrics.gauge("strongroom_broker_connections", "Connections.", lambda: len(gate))
    metrics.gauge("strongroom_broker_sessions", "Open handshakes and sessions.", lambda: len(sessions))
    metrics.gauge("strongroom_broker_resources", "Resources kept.", lambda: len(house.rules().resources))
    metrics.gauge(
        "strongroom_broker_audit_lines",
        "The number of the audit log's last line.",
        lambda: ledger.last(house.database),
    )
    return metrics
