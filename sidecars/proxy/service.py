"""What every conversation shares: the plan, who may ask, the identities, the receipts, and the way to the engine."""

import asyncio
import time

from sidecars.proxy.diary import Diary
from sidecars.proxy.engine.connection import Process
from sidecars.proxy.engine.drain import Gateway
from sidecars.proxy.engine.garbage import Alarm
from sidecars.proxy.engine.pool import EnginePool, UnreachableError
from sidecars.proxy.face.answers import Shown
from sidecars.proxy.intake import Intake
from sidecars.proxy.metrics import Metrics
from sidecars.proxy.plan import Plan
from sidecars.proxy.receipts.book import Book
from sidecars.proxy.routes import ASKED, Route
from sidecars.proxy.sealed import SealedBodies
from sidecars.proxy.tenants.admission import Admission
from strongroom.host.door.identity import TLSIdentity
from strongroom.host.door.turns import Turns


class Service:
    def __init__(self, plan: Plan, *, tls: TLSIdentity, book: Book) -> None:
        self.plan, self.book = plan, book
        self.admission = Admission(plan, salt_key=book.keys.salt, since=int(time.time()))
        self.metrics = Metrics(tenants=plan.metrics.tenants)
        self.shown = Shown(plan.evidence_socket)
        self.sealed = SealedBodies(book.keys.hpke)
        self.gateway = Gateway()
        self.alarm = Alarm()  # rung by whoever sees the engine go wrong
        self.turns = Turns()  # with the firmware
        self.reading = (
            asyncio.Lock()
        )  # held while a large body is parsed: others' turns come between two of them
        self.max_model_len: int | None = None  # tokens, as the engine says
        self.served: frozenset[Route] = frozenset()  # of the routes that the engine answers
        self.diary = Diary()
        self.requests = 0
        self.intake = Intake()
        self.last_token = time.monotonic()  # when the engine last gave anybody more of an answer
        self._pool: EnginePool | None = None
        self.use_tls(tls)

    @property
    def state(self) -> str:
        """open, draining or closed."""
        return self.gateway.state.value

    def use_tls(self, identity: TLSIdentity) -> None:
        """Show this one to connections to come."""
        self.tls = identity
        self.book.use_tls(identity)

    def serves(self, route: Route) -> bool:
        return route not in ASKED or route in self.served

    def open(self, process: Process, *, served: frozenset[Route], max_model_len: int | None) -> None:
        """Let requests through to the very process that answered the canary."""
        self.served, self.max_model_len = served, max_model_len
        self._pool = EnginePool(self.plan.engine_socket, process)
        self.gateway.open()

    def close(self) -> None:
        self.gateway.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self.diary.write()
        self.book.close()

    def pool(self) -> EnginePool:
        """Connections to the engine. UnreachableError when there is none."""
        if self._pool is None:
            raise UnreachableError("engine: it has not answered its canary")
        return self._pool
