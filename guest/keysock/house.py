"""Everything behind the key socket's four doors, put together from a plan, a root and the agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from guest.keysock.agent import Agent
from guest.keysock.doors import Door, Table, quoting
from guest.keysock.dstack import Service
from guest.keysock.keyring import Keyring
from guest.keysock.machine import Machine, described
from guest.keysock.ours import Ours
from guest.keysock.plan import Plan
from guest.keysock.quotes import Quotes
from guest.keysock.tappd import Tappd

PATIENT: Final = 30.0  # seconds for an answer of our own interface: evidence of many GPUs takes some of them


@dataclass(frozen=True, slots=True)
class Doors:
    """What each listening socket answers, by the name systemd hands it over under."""

    service: Service
    doors: Mapping[str, Door]

    @classmethod
    async def open(cls, plan: Plan, root: bytes, agent: Agent) -> Self:
        """Asks the agent once what machine this is. Raises StrongroomError where that cannot be told."""
        keyring = None
        if plan.origin is not None:
            keyring = Keyring.of(root, epoch=plan.origin.epoch, now=datetime.now(UTC))
        seen = await agent.machine()
        machine = described(
            plan,
            Machine.of(seen.tee, seen.report),
            seen.log,
            root_public=b"" if keyring is None else keyring.app.app_root_public,
            certificate="" if keyring is None else keyring.certificate_pem,
        )
        service = Service(
            agent=agent, machine=machine, keyring=keyring, quotes=Quotes(agent, machine), strict=plan.strict
        )
        rights = None if plan.origin is None else plan.rights
        dstack = Door(tables=_dstack(service), rights=rights)
        return cls(
            service,
            {
                "dstack": dstack,
                "tappd": Door(tables=_tappd(service), rights=rights),
                "quote": quoting(dstack),
                "agent": Door(tables={"/v1/": Ours(service).table()}, rights=rights, budget=PATIENT),
            },
        )


def _dstack(service: Service) -> Mapping[str, Table]:
    worker, worker_v1 = service.worker(), service.worker_v1()
    return {
        "/": service.v0(),
        "/v0/": service.v0(),
        "/v1/": service.v1(),
        "/prpc/": worker,
        "/prpc/Worker.": worker,
        "/prpc/v0/Worker.": worker,
        "/prpc/v1/Worker.": worker_v1,
    }


def _tappd(service: Service) -> Mapping[str, Table]:
    tappd = Tappd(service).table()
    return {"/": tappd, "/prpc/": tappd, "/prpc/Tappd.": tappd}
