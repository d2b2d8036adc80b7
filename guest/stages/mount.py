"""Sockets -> Volumes: the filesystem daemon gets the key by credential and mounts the model at the epoch it names."""

import asyncio
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest.engine import MOUNT
from guest.machine import units
from guest.stages.measure import Workload
from guest.stages.sockets import Sockets
from guest.system import System
from strongroom.errors import MachineError
from strongroom.wire.canonical import JSON, pack_json

UNIT: Final = "strongroom-fs.service"
ENGINE_USER: Final = "strongroom-engine"
TIMEOUT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Volumes:
    workload: Workload
    root: str  # SHA-256 of the manifest, hex
    epoch: int
    path: Path

    def model(self) -> dict[str, JSON]:
        """The model's identity as evidence, receipts and the door state it."""
        return {"name": self.workload.config.model.name, "root": self.root, "epoch": self.epoch}


async def mount(system: System, sockets: Sockets) -> Volumes:
    keys = sockets.keys
    model, volume = keys.workload.config.model, keys.volume
    root = volume.root.hex()
    request: JSON = {
        "source": model.source,
        "mount": MOUNT,
        "root": root,
        "epoch": volume.epoch,
        "uid": _engine_uid(),  # what it mounts belongs to the engine, whoever sealed it
    }
    system.grants.grant(UNIT, "volume", pack_json(request))
    system.grants.grant(UNIT, "model-key", volume.key)
    await units.start(UNIT, timeout=TIMEOUT)
    if not await asyncio.to_thread(Path(MOUNT).is_mount):
        raise MachineError(f"mount: {UNIT} is ready but {MOUNT} is no mount point")
    volumes = Volumes(workload=keys.workload, root=root, epoch=volume.epoch, path=Path(MOUNT))
    await system.attester.extend("model", pack_json(volumes.model()))
    # From here on the log cannot be taken for that of a boot in progress.
    await system.attester.extend("boot-done", pack_json({}))
    system.record.note(model=volumes.model())
    return volumes


def _engine_uid() -> int:
    try:
        return pwd.getpwnam(ENGINE_USER).pw_uid
    except KeyError:
        raise MachineError(f"mount: there is no user {ENGINE_USER}, want the one from sysusers.d") from None
