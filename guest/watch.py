"""After the boot: prove to systemd that we live, and end the machine when a part cannot be brought back."""

import asyncio
from typing import Final

from guest import engine
from guest.machine import units
from guest.machine.netns import check_sealed
from guest.stages.serve import SOUND, UNITS
from guest.system import System
from strongroom.errors import MachineError, VerifyError
from strongroom.host.notify import notify

PERIOD: Final = 1.0  # seconds
GONE: Final = ("failed", "inactive")  # nobody starts it again


async def keep_watch(system: System) -> None:
    """Runs until cancelled. Raises when a unit has failed for good, the engine's network is no longer sealed, or a
    GPU is not as it was attested.

    Closing the door is not left to this loop: the units are bound to each other, and the door watches the engine.
    """
    while True:
        seen = await units.states(*UNITS)
        for unit in seen:
            if unit.active == "failed" and unit.result == "start-limit-hit":
                raise MachineError(f"restarted too often: {unit.failure()}")
        fs = seen[0]
        if fs.running and fs.status and not fs.status.startswith(SOUND):
            raise VerifyError(f"model: {fs.status}")
        if fs.active in GONE:  # the engine is not bound to it, for a death that systemd repairs
            raise fs.failure()
        running = next(unit for unit in seen if unit.name == engine.UNIT)
        if running.main_pid:
            check_sealed(running.main_pid)
        await system.gpus.still_ready()
        parts = {unit.name: {"state": unit.active, "restarts": unit.restarts} for unit in seen}
        if parts != system.record.content.get("units"):
            system.record.note(units=parts)
        notify("WATCHDOG=1")
        await asyncio.sleep(PERIOD)
