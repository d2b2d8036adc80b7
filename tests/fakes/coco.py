"""The local REST with everything behind it, in a thread of the test: agent, broker, a simulated machine."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from guest.aael import AAELLog
from guest.broker import KeyBroker
from guest.coco.__main__ import NAME, listeners
from guest.coco.agent import Agent
from guest.coco.plan import UNIT, Plan
from guest.coco.rest import Rest
from guest.coco.rules import Right, Rule, Rules
from guest.coco.server import House
from guest.config import Broker
from guest.resources import Resources
from strongroom.broker.resource import ResourceURI
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.evidence.eventlog import EventLog
from strongroom.wire.canonical import b64u
from tests.fakes.broker import VOLUME, ToldKeeper, desk, respond_with
from tests.fakes.exchange import events
from tests.fakes.https import Heard, Respond, certificate, listening
from tests.fakes.keysock import UnixHTTP, _listener, backend, running

MODEL: Final = ResourceURI.parse("kbs:///default/model/llama")
PASSWORD: Final = ResourceURI.parse("kbs:///default/db/password")
SECRET: Final = bytes(range(200, 232)) + b"\0\n"  # no text
KEY: Final = ResourceURI.parse("kbs:///default/db/key")
UID: Final = os.getuid()  # whose rules count: this test is a program
EVERYTHING: Final = Rule(resources=("*",), allow=frozenset(Right))


def keeper() -> ToldKeeper:
    return ToldKeeper({MODEL: VOLUME.pack(), PASSWORD: SECRET, KEY: bytes(range(32))})


@dataclass
class Coco:
    """The sockets while they serve, and the far side's knobs."""

    directory: Path
    plan: Plan
    keeper: ToldKeeper
    resources: Resources
    shown: TLSCertificate
    log: AAELLog | None = None
    deadline_s: float = 5.0
    respond: Respond | None = None  # in place of the desk
    heard: Heard = field(default_factory=Heard)

    @property
    def socket(self) -> Path:
        return self.directory / NAME

    @property
    def events(self) -> EventLog:
        return self.resources._attester.log

    def get(self, target: str, *, method: str = "GET", body: bytes | None = None) -> tuple[int, str, bytes]:
        """Status, content type and body of one request on the unix socket."""
        with closing(UnixHTTP(self.socket)) as client:
            client.request(method, target, body)
            answer = client.getresponse()
            raw = answer.read()
        assert answer.getheader("Content-Length") == str(len(raw))
        return answer.status, answer.getheader("Content-Type") or "", raw


def everything() -> Rules:
    """Rules that give this test's own uid all there is."""
    return Rules(uids={UID: EVERYTHING})


def over(data: bytes) -> str:
    """What asks for evidence over these bytes."""
    return f"/aa/evidence?runtime_data={b64u(data)}&encoding=base64"


@contextmanager
def allowed(directory: Path, rule: Rule, name: str = "snp") -> Iterator[Coco]:
    """`served` where this rule is all that this test's own uid has."""
    with served(directory, name, plan=Plan(rules=Rules(uids={UID: rule}))) as coco:
        yield coco


@contextmanager
def served(
    directory: Path,
    name: str = "snp",
    *,
    plan: Plan | None = None,
    told: ToldKeeper | None = None,
    log: AAELLog | None = None,
    respond: Respond | None = None,
    deadline_s: float = 5.0,
) -> Iterator[Coco]:
    """The sockets of a machine that has booted, on a port of its own where the plan says one."""
    with backend(name, directory) as machine:
        resources = Resources(machine.attester, who=lambda _: UNIT)
        made = Plan(rules=everything()) if plan is None else plan
        shown = certificate(directory / "tls")
        coco = Coco(directory, made, told or keeper(), resources, shown, log, deadline_s, respond)
        with running(lambda ready: _live(coco, ready)):
            yield coco


async def _live(coco: Coco, ready: threading.Event) -> None:
    attester = coco.resources._attester
    for event in events().events:
        await attester.extend(event.name, event.payload)
    far = _listener(coco.directory / "resources.sock")
    respond = coco.respond or respond_with(desk(coco.keeper))
    resources = coco.resources
    with ExitStack() as stack:
        async with (
            listening(coco.directory / "tls", respond) as coco.heard,
            KeyBroker(attester) as broker,
        ):
            named = Broker(
                url=coco.heard.url,
                ca_pem=None,
                spki_sha256=coco.shown.spki_sha256.hex(),
                deadline_s=coco.deadline_s,  # type: ignore[arg-type]  # a test has less time
            )
            await resources.open(
                coco.plan, lambda: broker.session(named), own=frozenset({MODEL}), log=coco.log
            )
            answering = asyncio.create_task(resources.serve(far))
            house = House(Rest(coco.plan, Agent(coco.directory / "resources.sock"), version="1.2"))
            servers = [
                await house.listen(listener, who)
                for listener, who in listeners(coco.plan, coco.directory, stack)
            ]
            try:
                ready.set()
                await asyncio.Event().wait()
            finally:
                for server in servers:
                    server.close()
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
                far.close()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
