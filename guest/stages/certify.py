"""Volumes -> Identity: the door makes its key and obtains evidence for it. It does not open yet."""

from dataclasses import dataclass
from typing import Final

from guest import engine
from guest.evidence import DOOR_UNIT, SOCKET
from guest.machine import door, units
from guest.stages.mount import Volumes
from guest.system import System
from strongroom.wire.canonical import JSON, pack_json

TIMEOUT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Identity:
    volumes: Volumes
    spki_sha256: str


async def certify(system: System, volumes: Volumes) -> Identity:
    config, plan = volumes.workload.config, volumes.workload.plan
    tenants: list[JSON] = [{"name": t.name, "token_sha256": t.token_sha256} for t in config.door.tenants]
    names: list[JSON] = [*config.door.names]
    settings: dict[str, JSON] = {
        "listen_host": "0.0.0.0",  # noqa: S104  the door is for the world
        "listen_port": config.door.port,
        "engine_socket": engine.SOCKET,
        "evidence_socket": SOCKET,
        "names": names,
        "model": volumes.model(),
        "engine": {"name": "vllm", "version": plan.version, "flags_sha256": plan.flags_sha256},
        "tenants": tenants,
        "cache": config.door.cache,
    }
    system.grants.grant(DOOR_UNIT, "door", pack_json(settings))
    await units.start(DOOR_UNIT, timeout=TIMEOUT)
    state = await door.state()
    system.record.note(door={"port": config.door.port, "spki_sha256": state.spki_sha256})
    return Identity(volumes=volumes, spki_sha256=state.spki_sha256)
