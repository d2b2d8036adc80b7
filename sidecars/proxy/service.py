"""What every conversation shares: the plan, who may ask, the identities, the receipts, and the clock."""

import asyncio
import secrets
import time

from sidecars.proxy.certify import ReceiptIdentity
from sidecars.proxy.engine import EngineConnection, Process
from sidecars.proxy.gate import Gate
from sidecars.proxy.ledger import Ledger
from sidecars.proxy.plan import Plan, Tenant
from sidecars.proxy.routes import Route
from strongroom.errors import TransportError
from strongroom.host.door.identity import TLSIdentity
from strongroom.host.door.turns import Turns
from strongroom.receipts.hashing import BodyHash
from strongroom.receipts.receipt import Receipt, SignedReceipt, sign


class Service:
    def __init__(self, plan: Plan, *, tls: TLSIdentity, receipts: ReceiptIdentity) -> None:
        self.plan = plan
        self.tls = tls  # replaced when it is renewed
        self.receipts = receipts
        self.collateral = receipts.evidence.collateral  # the newest the agent gave
        self.gate = Gate(plan.tenants, cache=plan.cache, salt_key=secrets.token_bytes(32))
        self.ledger = Ledger()
        self.max_model_len: int | None = None  # tokens, as the engine says
        self.requests = 0
        self.turns = Turns()  # with the firmware
        self.reading = asyncio.Lock()  # held while a body is parsed: others' turns come between two of them
        self._process: Process | None = None

    def salt(self, tenant: Tenant, namespace: str) -> str:
        return self.gate.salt(tenant, namespace, fresh=secrets.token_bytes(32))

    def engine_sang(self, process: Process, *, max_model_len: int | None) -> None:
        self._process, self.max_model_len = process, max_model_len

    async def engine(self) -> EngineConnection:
        """A connection to the very process that answered the canary. TransportError when there is none."""
        if self._process is None:
            raise TransportError("engine: it has not answered its canary")
        return await EngineConnection.open(self.plan.engine_socket, process=self._process)

    def keep(self, tenant: Tenant, signed: SignedReceipt) -> None:
        self.ledger.keep(tenant, signed, now=time.monotonic())

    def find(self, tenant: Tenant, id: str) -> SignedReceipt | None:
        return self.ledger.find(tenant, id, now=time.monotonic())


class Witness:
    """Sees both bodies of one exchange as they cross the door, and signs what it saw."""

    def __init__(self, service: Service, *, id: str, route: Route, tenant: Tenant, request: bytes) -> None:
        self.id = id
        self._service, self._route, self._tenant = service, route, tenant
        self._request, self._response = BodyHash(), BodyHash()
        self._request.update(request)

    def delivered(self, data: bytes) -> None:
        self._response.update(data)

    def sign(self, *, complete: bool) -> None:
        """Put a receipt for all of the above into the ledger."""
        service = self._service
        receipt = Receipt(
            id=self.id,
            served_at=int(time.time()),
            endpoint=self._route.value,
            method="POST",
            model=service.plan.model,
            engine=service.plan.engine,
            request_sha256=self._request.digest(),
            response_sha256=self._response.digest(),
            complete=complete,
            evidence_sha256=service.receipts.evidence.digest,
        )
        service.keep(self._tenant, sign(receipt, service.receipts.key))
