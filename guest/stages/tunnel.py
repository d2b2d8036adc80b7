"""Identity -> Tunnel: the engine's network. With no peers configured it is a namespace with no way out."""

from dataclasses import dataclass
from typing import Final

from guest.machine import units
from guest.stages.certify import Identity
from guest.system import System

UNIT: Final = "strongroom-netns.service"
TIMEOUT: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Tunnel:
    identity: Identity
    unit: str  # holds the namespace; the engine is bound to it


async def tunnel(system: System, identity: Identity) -> Tunnel:
    await units.start(UNIT, timeout=TIMEOUT)
    system.record.note(network="loopback only")
    return Tunnel(identity=identity, unit=UNIT)
