"""Every decision of a broker on its way to the audit log: a line of its own, or a place in the next summary.

A line is on the disk before its decision is told. What is only counted is in memory until then: whoever kills the
process takes the count of one interval along, and no line.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from strongroom.broker.audit import Audit
from strongroom.broker.tally import Tally
from strongroom.errors import StrongroomError
from strongroom.host.brokerage.metrics import Metrics
from strongroom.host.brokerage.recorder import Recorder

INTERVAL: Final = 300.0  # seconds between two summaries


class Decisions:
    """Where decisions go. StrongroomError from `record` and `keep` when one cannot be kept: then it is none."""

    def __init__(
        self,
        recorder: Recorder,
        metrics: Metrics,
        clock: Callable[[], datetime],
        tally: Tally | None = None,
    ) -> None:
        self._recorder, self._metrics, self._clock = recorder, metrics, clock
        self._tally = tally or Tally()
        self._lock = threading.Lock()

    async def record(self, audit: Audit) -> None:
        """Return when the decision may be told."""
        if self._told_apart(audit):
            await self._recorder.record(audit)
            self._count(audit)

    def keep(self, audit: Audit) -> None:
        """`record` for a thread that waits."""
        if self._told_apart(audit):
            self._recorder.keep(audit)
            self._count(audit)

    def note(self, audit: Audit) -> None:
        """`record` for a decision that nobody is told, as to close a connection."""
        if self._told_apart(audit):
            self._recorder.submit(audit)
            self._count(audit)

    async def summarise(self) -> None:
        """Write down what was counted, and begin anew."""
        with self._lock:
            lines = self._tally.summary(self._clock())
        for audit in lines:
            with suppress(StrongroomError):  # the next decision finds out, and is none
                await self._recorder.record(audit)
                self._count(audit)

    async def run(self, interval: float = INTERVAL) -> None:
        """A summary now and then, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.summarise()

    def _told_apart(self, audit: Audit) -> bool:
        with self._lock:
            apart = self._tally.told_apart(audit)
        if not apart:
            self._metrics.count("strongroom_broker_summarised_total")
        return apart

    def _count(self, audit: Audit) -> None:
        self._metrics.count("strongroom_broker_decisions_total", verdict=audit.outcome.value)
