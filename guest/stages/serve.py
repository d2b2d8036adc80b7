"""GpuReady -> Serving: start the engine; the door opens itself after a canary completion."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from guest import engine
from guest.evidence import DOOR_UNIT
from guest.machine import door, units
from guest.machine.netns import check_sealed
from guest.stages.gpu import GpuReady
from guest.stages.mount import UNIT as FS_UNIT
from guest.system import System
from guest.volumes import StateVolume
from strongroom.errors import MachineError, VerifyError
from strongroom.host.notify import notify

TARGET: Final = "strongroom-serving.target"
UNITS: Final = (FS_UNIT, engine.UNIT, DOOR_UNIT)
SOUND: Final = "serving "  # how the filesystem's status begins while every block it read was genuine
START_TIMEOUT: Final = (
    30.0  # seconds for systemd to start the engine's process, not for the engine to be ready
)
_POLL: Final = 0.25  # seconds
_EXTEND: Final = 30  # seconds by which each step of a living start extends systemd's patience


@dataclass(frozen=True, slots=True)
class Serving:
    ready: GpuReady

    @property
    def volumes(self) -> tuple[StateVolume, ...]:
        """What programs write to, besides the parts that serve."""
        return self.ready.tunnel.identity.volumes.workload.config.volumes


async def serve(system: System, ready: GpuReady) -> Serving:
    """Raises MachineError when a part ends or the engine is not answering within its deadline."""
    workload = ready.tunnel.identity.volumes.workload
    system.grants.grant(engine.UNIT, "plan", workload.plan.credential())
    await units.start(engine.UNIT, timeout=START_TIMEOUT)
    check_sealed((await units.state(engine.UNIT)).main_pid)
    deadline = time.monotonic() + workload.config.engine.start_deadline_s
    while await check_parts() and not await _door_open():
        if time.monotonic() > deadline:
            raise MachineError(f"engine: no canary answer after {workload.config.engine.start_deadline_s} s")
        notify(f"EXTEND_TIMEOUT_USEC={_EXTEND * 1_000_000}")
        await asyncio.sleep(_POLL)
    await units.start(TARGET, timeout=START_TIMEOUT)  # from now on systemd brings back what may come back
    return Serving(ready=ready)


async def check_parts() -> list[units.UnitState]:
    """The units, all running for the first time; else the error of the one that is not.

    The filesystem is asked first: an engine that read a refused block only knows of an i/o error.
    """
    seen = await units.states(*UNITS)
    if seen[0].running and not seen[0].status.startswith(SOUND):
        raise VerifyError(f"model: {seen[0].status}")
    for unit in seen:
        if not unit.running or unit.restarts:
            raise unit.failure()
    return seen


async def _door_open() -> bool:
    return (await door.state()).open
