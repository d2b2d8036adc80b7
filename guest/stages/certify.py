"""Volumes -> Identity: the door makes its key and obtains evidence for it. It does not open yet.

The keys it signs answers with come from a secret of this boot, which stays in the agent's memory: a door that starts
again is given the same, and evidence in others' shapes (guest/foreign.py) can name those keys and no other.
"""

import secrets
from dataclasses import dataclass
from typing import Final

from guest import engine
from guest.evidence import DOOR_UNIT, SOCKET
from guest.grants import Grants
from guest.machine import door, units
from guest.stages.mount import Volumes
from guest.system import System
from strongroom.receipts.keys import SECRET, DoorKeys
from strongroom.wire.canonical import JSON, pack_json

TIMEOUT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Identity:
    volumes: Volumes
    spki_sha256: str


def door_keys(grants: Grants) -> DoorKeys:
    """The keys of a new secret, which the door is granted. Once a boot."""
    secret = secrets.token_bytes(SECRET)
    grants.grant(DOOR_UNIT, "door-secret", secret)
    return DoorKeys.from_secret(secret)


async def certify(system: System, volumes: Volumes) -> Identity:
    config, plan = volumes.workload.config, volumes.workload.plan
    settings: dict[str, JSON] = {
        "listen_host": "0.0.0.0",  # noqa: S104  the door is for the world
        "engine_socket": engine.SOCKET,
        "evidence_socket": SOCKET,
        "model": volumes.model(),
        "engine": {"name": "vllm", "version": plan.version, "flags_sha256": plan.flags_sha256},
        **config.door.settings(sequences=config.engine.max_num_seqs),
    }
    system.grants.grant(DOOR_UNIT, "door", pack_json(settings))
    await units.start(DOOR_UNIT, timeout=TIMEOUT)
    state = await door.state()
    system.record.note(door={"port": config.door.port, "spki_sha256": state.spki_sha256})
    return Identity(volumes=volumes, spki_sha256=state.spki_sha256)
