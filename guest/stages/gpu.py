"""Tunnel -> GpuReady: as many GPUs as configured, attested, then open for work. None configured: none present."""

import secrets
from dataclasses import dataclass

from guest.machine.device import NONCE_SIZE
from guest.machine.pci import nvidia_gpus
from guest.stages.tunnel import Tunnel
from guest.system import System
from strongroom.errors import PolicyError
from strongroom.evidence.binding import gpu_digest
from strongroom.wire.canonical import JSON, pack_json


@dataclass(frozen=True, slots=True)
class GpuReady:
    tunnel: Tunnel
    count: int


async def gpus_ready(system: System, tunnel: Tunnel) -> GpuReady:
    """Raises PolicyError for any count but the configured one, and whatever admission and verification raise."""
    wanted, found = tunnel.identity.volumes.workload.config.gpus, nvidia_gpus()
    if len(found) != wanted:
        raise PolicyError(f"gpu: found {len(found)} on the bus, want {wanted}")
    if wanted:
        await _open(system, wanted)
    system.record.note(gpus=wanted)
    return GpuReady(tunnel=tunnel, count=wanted)


async def _open(system: System, count: int) -> None:
    """Attest, write down what was attested, and only then let work in."""
    attested = await system.gpus.attest(secrets.token_bytes(NONCE_SIZE))
    event: dict[str, JSON] = {
        "count": count,
        "evidence_sha384": gpu_digest(attested.devices).hex(),
        "nvml": attested.state.to_json(),
    }
    await system.attester.extend("gpu-ready", pack_json(event))
    await system.gpus.let_in(attested)
