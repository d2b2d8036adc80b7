"""Tunnel -> GpuReady: as many GPUs as configured, each in confidential mode. None configured must mean none present."""

from dataclasses import dataclass

from guest.machine.pci import nvidia_gpus
from guest.stages.tunnel import Tunnel
from guest.system import System
from strongroom.errors import PolicyError


@dataclass(frozen=True, slots=True)
class GpuReady:
    tunnel: Tunnel
    count: int


async def gpus_ready(system: System, tunnel: Tunnel) -> GpuReady:
    """Raises PolicyError for any count but the configured one; GPU evidence itself cannot be judged yet."""
    wanted, found = tunnel.identity.volumes.workload.config.gpus, nvidia_gpus()
    if len(found) != wanted:
        raise PolicyError(f"gpu: found {len(found)} on the bus, want {wanted}")
    if wanted:
        raise PolicyError(
            f"gpu: {wanted} configured, but this version cannot verify GPU evidence and will not use them"
        )
    system.record.note(gpus=wanted)
    return GpuReady(tunnel=tunnel, count=wanted)
