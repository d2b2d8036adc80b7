"""After the boot: prove to systemd that we live, and end the machine when a part cannot be brought back."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from guest import engine
from guest.machine import units
from guest.machine.netns import check_sealed
from guest.machine.units import UnitState
from guest.record import Record, sentence
from guest.stages.serve import SOUND, UNITS
from guest.system import System
from guest.volumes import StateVolume
from strongroom.errors import MachineError, VerifyError
from strongroom.host.notify import notify

PERIOD: Final = 1.0  # seconds
GONE: Final = ("failed", "inactive")  # nobody starts it again


async def keep_watch(system: System, volumes: Sequence[StateVolume] = ()) -> None:
    """Runs until cancelled. Raises when a unit has failed for good, the engine's network is no longer sealed, or a
    GPU is not as it was attested.

    Closing the door is not left to this loop: the units are bound to each other, and the door watches the engine. A
    volume that is gone is told and not more: it is an error for who uses it, and no reason to end what serves.
    """
    while True:
        seen = await units.states(*UNITS, *(volume.unit for volume in volumes))
        parts, state = seen[: len(UNITS)], seen[len(UNITS) :]
        for unit in parts:
            if unit.active == "failed" and unit.result == "start-limit-hit":
                raise MachineError(f"restarted too often: {unit.failure()}")
        fs = parts[0]
        if fs.running and fs.status and not fs.status.startswith(SOUND):
            raise VerifyError(f"model: {fs.status}")
        if fs.active in GONE:  # the engine is not bound to it, for a death that systemd repairs
            raise fs.failure()
        served = next(unit for unit in parts if unit.name == engine.UNIT)
        if served.running and served.main_pid:  # before its exec, a process is still where systemd is
            check_sealed(served.main_pid)
        await system.gpus.still_ready()
        _tell(system.record, parts, state)
        notify("WATCHDOG=1")
        await asyncio.sleep(PERIOD)


def _tell(record: Record, parts: Sequence[UnitState], volumes: Sequence[UnitState]) -> None:
    """Put what changed into the record, and into the journal what nobody mends."""
    told = {unit.name: {"state": unit.active, "restarts": unit.restarts} for unit in parts}
    told |= {
        unit.name: {"state": unit.active, "restarts": unit.restarts, "status": unit.status}
        for unit in volumes
    }
    before = record.content.get("units", {})
    if told == before:
        return
    record.note(units=told)
    for unit in volumes:
        if unit.active in GONE and before.get(unit.name, {}).get("state") not in GONE:
            print(f"strongroom-agent: {sentence(unit.failure())}", file=sys.stderr, flush=True)
