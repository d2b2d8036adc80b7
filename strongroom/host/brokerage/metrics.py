"""What the broker counts, as Prometheus reads it (text format 0.0.4). No name of a guest or a resource is in it."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

CONTENT_TYPE: Final = "text/plain"  # with version=0.0.4
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
_Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Times:
    """A histogram."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Metrics:
    """Counters, times, and gauges that are read when they are asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helps: dict[str, str] = {}
        self._counters: dict[str, dict[_Labels, int]] = {}
        self._times: dict[str, dict[_Labels, _Times]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def counter(self, name: str, help: str, *series: Mapping[str, str]) -> None:
        """Declare one; the `series` are there from the beginning, at 0."""
        self._helps[name] = help
        self._counters[name] = {_labels(one): 0 for one in series}

    def times(self, name: str, help: str) -> None:
        self._helps[name] = help
        self._times[name] = {}

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        self._helps[name] = help
        self._gauges[name] = read

    def count(self, name: str, **labels: str) -> None:
        with self._lock:
            series = self._counters[name]
            series[_labels(labels)] = series.get(_labels(labels), 0) + 1

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        with self._lock:
            self._times[name].setdefault(_labels(labels), _Times()).observe(seconds)

    def text(self) -> str:
        """Everything, one line break at the end."""
        lines: list[str] = []
        with self._lock:
            for name, series in self._counters.items():
                lines += self._heading(name, "counter")
                lines += [f"{name}{_braced(labels)} {value}" for labels, value in sorted(series.items())]
            for name, read in self._gauges.items():
                lines += [*self._heading(name, "gauge"), f"{name} {read():g}"]
            for name, timed in self._times.items():
                lines += self._heading(name, "histogram")
                for labels, times in sorted(timed.items(), key=lambda item: item[0]):
                    lines += _buckets(name, labels, times)
        return "\n".join(lines) + "\n"

    def _heading(self, name: str, kind: str) -> Sequence[str]:
        return f"# HELP {name} {self._helps[name]}", f"# TYPE {name} {kind}"


def _buckets(name: str, labels: _Labels, times: _Times) -> list[str]:
    lines, seen = [], 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), times.counts, strict=True):
        seen += count
        lines.append(f"{name}_bucket{_braced((*labels, ('le', bound)))} {seen}")
    return [
        *lines,
        f"{name}_sum{_braced(labels)} {times.total:.6f}",
        f"{name}_count{_braced(labels)} {seen}",
    ]


def _labels(labels: Mapping[str, str]) -> _Labels:
    return tuple(sorted(labels.items()))


def _braced(labels: _Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
