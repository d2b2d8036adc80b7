"""Counters of the door in Prometheus' text form: never content, and no tenant by name unless the plan says so.

Whoever may read them learns how long answers take only in coarse steps, and of all tenants together. Label values
are ours: routes, statuses, causes. Nothing a client sends becomes one.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from sidecars.proxy.tenants.admission import Admission

K = TypeVar("K")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
GAP: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)  # seconds


class Cause(StrEnum):
    """Why an answer that had begun was not completed."""

    CLIENT = "client_left"
    STALL = "client_stalled"
    ENGINE = "engine_failed"
    TIMEOUT = "engine_silent"
    CLOSED = "door_closed"


class Histogram:
    """Counts by upper edge, in seconds."""

    __slots__ = ("_counts", "_edges", "_sum")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges, self._counts, self._sum = edges, [0] * (len(edges) + 1), 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._edges, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        total = 0
        for edge, count in zip(self._edges, self._counts, strict=False):
            total += count
            yield f'{name}_bucket{{le="{edge:g}"}} {total}'
        total += self._counts[-1]
        yield f'{name}_bucket{{le="+Inf"}} {total}'
        yield f"{name}_sum {self._sum:.3f}"
        yield f"{name}_count {total}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What is not counted but looked at when somebody asks."""

    state: str  # of the door
    connections: int
    admission: Admission
    evidence_age: float  # seconds, of the evidence in the certificate


@dataclass(slots=True)
class Metrics:
    """Each method is one event, told where it happens."""

    tenants: bool = False  # whether tenants are named
    _requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    _aborts: Counter[Cause] = field(default_factory=Counter)
    _signatures: Counter[str] = field(default_factory=Counter)
    _bytes: Counter[str] = field(default_factory=Counter)
    _first: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN))
    _gap: Histogram = field(default_factory=lambda: Histogram(GAP))
    _streams: int = 0

    def requested(self, route: str, status: int) -> None:
        """A request was answered. `route` is one of our own names, "-" where there was none."""
        self._requests[route, status] += 1

    def received(self, size: int) -> None:
        """Bytes of a request's body."""
        self._bytes["received"] += size

    def sent(self, size: int) -> None:
        """Bytes of an answer's body."""
        self._bytes["sent"] += size

    def first_token(self, seconds: float) -> None:
        """From a question's last byte to the first of its streamed answer."""
        self._first.observe(seconds)

    def gap(self, seconds: float) -> None:
        """Between two pieces of one stream."""
        self._gap.observe(seconds)

    def stream_began(self) -> None:
        self._streams += 1

    def stream_ended(self) -> None:
        self._streams -= 1

    def aborted(self, cause: Cause) -> None:
        self._aborts[cause] += 1

    def signed(self, algorithm: str) -> None:
        """A signature was made. `algorithm` is one of our own names."""
        self._signatures[algorithm] += 1

    def render(self, now: Now) -> bytes:
        """The text of one answer to GET /metrics."""
        return ("\n".join(self._lines(now)) + "\n").encode()

    def _lines(self, now: Now) -> Iterator[str]:
        admission = now.admission
        yield from _gauge("state", "1 for the state that the door is in.", {_labels(state=now.state): 1})
        yield from _gauge("connections", "Open connections.", {"": now.connections})
        yield from _gauge("completions_running", "Completions at the engine.", {"": admission.running})
        yield from _gauge("completions_waiting", "Completions waiting for a place.", {"": admission.waiting})
        yield from _gauge("streams", "Streams being answered.", {"": self._streams})
        yield from _gauge(
            "evidence_age_seconds", "Age of the evidence in the certificate.", {"": int(now.evidence_age)}
        )
        yield from _counter(
            "requests",
            "Requests answered.",
            _each(self._requests, lambda k: _labels(route=k[0], status=k[1])),
        )
        yield from _counter(
            "refused",
            "Completions that limits kept out.",
            _each(admission.refused, lambda k: _labels(reason=k)),
        )
        yield from _counter(
            "aborts", "Answers begun and not completed.", _each(self._aborts, lambda k: _labels(cause=k))
        )
        yield from _counter(
            "signatures", "Signatures made.", _each(self._signatures, lambda k: _labels(algorithm=k))
        )
        yield from _counter(
            "body_bytes", "Bytes of bodies.", _each(self._bytes, lambda k: _labels(direction=k))
        )
        yield from _histogram("first_token_seconds", "From question to first token.", self._first)
        yield from _histogram("token_gap_seconds", "Between two pieces of a stream.", self._gap)
        yield from self._tokens(admission)

    def _tokens(self, admission: Admission) -> Iterator[str]:
        requests, tokens = Counter[str](), Counter[str]()
        for name, usage in admission.usages:
            who = {"tenant": name} if self.tenants else {}
            requests[_labels(**who)] += usage.requests
            tokens[_labels(kind="prompt", **who)] += usage.prompt_tokens
            tokens[_labels(kind="completion", **who)] += usage.completion_tokens
        yield from _counter("completions", "Completions let in.", requests)
        yield from _counter("tokens", "Tokens, as the engine counts.", tokens)


def _each(counts: Mapping[K, int], labels: Callable[[K], str]) -> dict[str, int]:
    return dict(sorted((labels(key), count) for key, count in counts.items()))


def _labels(**labels: str | int) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _gauge(name: str, means: str, values: Mapping[str, int]) -> Iterable[str]:
    return _family("gauge", f"strongroom_door_{name}", means, values)


def _counter(name: str, means: str, values: Mapping[str, int]) -> Iterable[str]:
    return _family("counter", f"strongroom_door_{name}_total", means, values)


def _family(kind: str, name: str, means: str, values: Mapping[str, int]) -> Iterator[str]:
    yield f"# HELP {name} {means}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{labels} {value}"


def _histogram(name: str, means: str, histogram: Histogram) -> Iterator[str]:
    name = f"strongroom_door_{name}"
    yield f"# HELP {name} {means}"
    yield f"# TYPE {name} histogram"
    yield from histogram.lines(name)
