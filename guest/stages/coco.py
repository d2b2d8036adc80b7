"""Beside the path: where userdata has a section `coco`, programs of Confidential Containers find their REST."""

import asyncio
from typing import Final

from guest.aael import DIRECTORY, AAELLog, PCRRegister
from guest.coco.plan import PLAN, UNIT
from guest.coco.userdata import Coco
from guest.config import Config
from guest.machine import units
from guest.resources import Resources
from guest.stages.mount import Volumes
from guest.system import System
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError

TIMEOUT: Final = 30.0  # seconds


async def open_coco(system: System, volumes: Volumes) -> None:
    """Raises StrongroomError when the REST does not come up, or its event log cannot be kept.

    Without it, this boot had its last question for the broker: later stages ask none.
    """
    config = volumes.workload.config
    if config.coco is None:
        await system.broker.rest()
    else:
        await system.record.stage("coco", _open(system, system.resources, config, config.coco))


async def _open(system: System, resources: Resources | None, config: Config, coco: Coco) -> None:
    if resources is None:
        raise ConfigError("strongroom.coco: this machine has no socket for it")
    plan = coco.plan
    await resources.open(
        plan,
        lambda: system.broker.session(config.broker),
        own=frozenset(map(ResourceURI.parse, config.own_keys)),
        log=await asyncio.to_thread(_log, system) if coco.eventlog else None,
    )
    system.grants.grant(UNIT, PLAN, plan.pack())
    await units.start(UNIT, timeout=TIMEOUT)
    system.record.note(coco={"port": plan.port, "eventlog": coco.eventlog})


def _log(system: System) -> AAELLog:
    if system.tpm is None:
        raise ConfigError(
            "strongroom.coco.eventlog: got true, and this machine has no vtpm for it, want false"
        )
    return AAELLog.open(DIRECTORY, PCRRegister(system.tpm))
