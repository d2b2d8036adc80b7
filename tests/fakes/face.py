"""A door's service as its face sees it, over a guest in the test: real book, real keys, simulated silicon."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecars.proxy.certify import make_receipt_identity
from sidecars.proxy.face.answers import Asking, Shown
from sidecars.proxy.plan import Plan
from sidecars.proxy.receipts.book import Book
from sidecars.proxy.sealed import SealedBodies
from sidecars.proxy.tenants.admission import Admission
from strongroom.host.door.identity import TLSIdentity, make_tls_identity
from strongroom.host.door.turns import Turns
from strongroom.receipts.keys import DoorKeys
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.exchange import ENGINE, MODEL

SECRET: Final = bytes(range(32))
TENANTS: Final = ("ann", "bob")


def plan(directory: Path, **more: JSON) -> Plan:
    value: dict[str, JSON] = {
        "listen_host": "127.0.0.1",
        "listen_port": 8443,
        "engine_socket": str(directory / "engine.sock"),
        "evidence_socket": str(directory / "evidence.sock"),
        "names": ["llm.example", "127.0.0.1"],
        "model": MODEL.to_json(),
        "engine": ENGINE.to_json(),
        "tenants": [{"name": name, "token_sha256": sha256(name.encode()).hexdigest()} for name in TENANTS],
        "cache": "tenant",
        **more,
    }
    return Plan.parse(pack_json(value))


@dataclass
class FaceService:
    plan: Plan
    book: Book
    tls: TLSIdentity
    shown: Shown
    state: str = "open"
    max_model_len: int | None = 4096
    admission: Admission = field(init=False)
    sealed: SealedBodies = field(init=False)
    turns: Turns = field(default_factory=Turns)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.admission = Admission(self.plan, salt_key=self.book.keys.salt, since=0)
        self.sealed = SealedBodies(self.book.keys.hpke)

    @classmethod
    async def make(cls, directory: Path, **more: JSON) -> "FaceService":
        """Certified by the agent that answers at evidence.sock below `directory`."""
        made, keys, now = plan(directory, **more), DoorKeys.from_secret(SECRET), datetime.now(UTC)
        identity = await make_receipt_identity(made, keys, now=now)
        tls = await make_tls_identity(evidence_socket=made.evidence_socket, names=made.names, now=now)
        book = Book(made, keys, identity)
        book.use_tls(tls)
        service = cls(made, book, tls, Shown(made.evidence_socket))
        service.shown = Shown(made.evidence_socket, clock=lambda: service.now)
        return service

    def asking(self, tenant: str | None = None) -> Asking:
        found = next((one for one in self.plan.tenants if one.name == tenant), None)
        return Asking(
            origin=b"someone",
            identity=self.tls,
            exporter=lambda nonce: bytes(31) + nonce[:1],
            tenant=found,
        )
