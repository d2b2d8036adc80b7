"""StateVolumes -> ModelHere: wait until a provider has pushed the model. One that lies at its source is there already.

The receiving door is a unit of its own. It seals what comes under our key and tells, through the service manager, what
it accepted; then it is stopped, and what it sealed is mounted like any other model.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from guest.config import Push
from guest.evidence import RECEIVER_UNIT, SOCKET
from guest.machine import units
from guest.stages.keys import Keys, Release
from guest.stages.measure import Workload
from guest.stages.volumes import StateVolumes
from guest.system import System
from strongroom.errors import ConfigError, MachineError, ProtocolError
from strongroom.host.notify import notify
from strongroom.push.answers import ACCEPTED, Accepted
from strongroom.push.offer import provider_name
from strongroom.wire.canonical import JSON, pack_json, parse_json, unb64u

TIMEOUT: Final = 60.0  # seconds for the unit to start, and to stop
_POLL: Final = 0.5  # seconds
_EXTEND: Final = 30  # seconds by which each look at a living unit extends systemd's patience


@dataclass(frozen=True, slots=True)
class ModelHere:
    """A sealed tree in this guest's reach, and what opens it."""

    workload: Workload
    key: bytes = field(repr=False)
    release: Release


async def receive(system: System, state: StateVolumes) -> ModelHere:
    """Raises MachineError when nothing was accepted in time, and what ended the unit when it ends."""
    keys = state.sockets.keys
    push = keys.workload.config.model.push
    if push is None:
        if keys.release is None:
            raise ConfigError("receive: a key for no release, and nobody to push one")
        return ModelHere(workload=keys.workload, key=keys.key, release=keys.release)
    providers = [unb64u(key, "provider key") for key in push.provider_keys]
    await system.attester.extend("push", pack_json(_event(keys, providers)))
    system.grants.grant(RECEIVER_UNIT, "receive", pack_json(_settings(keys.workload, push)))
    system.grants.grant(RECEIVER_UNIT, "model-key", keys.key)
    await units.start(RECEIVER_UNIT, timeout=TIMEOUT)
    accepted = await _accepted(system, push)
    await _end(accepted, keys.workload, providers)
    await system.attester.extend("pushed", pack_json(accepted.to_json()))
    return ModelHere(workload=keys.workload, key=keys.key, release=Release(accepted.root, accepted.epoch))


def _event(keys: Keys, providers: list[bytes]) -> JSON:
    """What is waited for: in the log before the door opens, so that a provider sees it in the evidence."""
    model = keys.workload.config.model
    names: list[JSON] = [provider_name(provider) for provider in providers]
    return {"name": model.name, "key": model.key or "ephemeral", "providers": names}


def _settings(workload: Workload, push: Push) -> JSON:
    config = workload.config
    names: list[JSON] = [*config.door.names]
    providers: list[JSON] = [*push.provider_keys]
    return {
        "listen_host": "0.0.0.0",  # noqa: S104  providers are elsewhere
        "listen_port": push.port,
        "evidence_socket": SOCKET,
        "names": names,
        "dest": config.model.source,
        "name": config.model.name,
        "providers": providers,
        "max_bytes": push.max_gib << 30,
    }


async def _accepted(system: System, push: Push) -> Accepted:
    deadline, said = time.monotonic() + push.wait_s, ""
    while time.monotonic() < deadline:
        unit = await units.state(RECEIVER_UNIT)
        if unit.status.startswith(ACCEPTED):
            told = parse_json(unit.status.removeprefix(ACCEPTED).encode(), RECEIVER_UNIT)
            return Accepted.from_json(told, RECEIVER_UNIT)
        if not unit.running and unit.active != "activating":  # one that was killed is started again
            raise unit.failure()
        if unit.status != said:
            system.record.note(push={"port": push.port, "status": (said := unit.status)})
        notify(f"EXTEND_TIMEOUT_USEC={_EXTEND * 1_000_000}")
        await asyncio.sleep(_POLL)
    raise MachineError(f"receive: no model was accepted within {push.wait_s} s")


async def _end(accepted: Accepted, workload: Workload, providers: list[bytes]) -> None:
    """No door to providers stays open behind this."""
    await units.stop(RECEIVER_UNIT, timeout=TIMEOUT)
    if (unit := await units.state(RECEIVER_UNIT)).running:
        raise MachineError(f"receive: {unit.name} is still {unit.active}, want it stopped")
    if accepted.name != workload.config.model.name:
        raise ProtocolError(f"receive: accepted {accepted.name!r}, want {workload.config.model.name!r}")
    if accepted.provider_sha256.hex() not in map(provider_name, providers):
        raise ProtocolError("receive: accepted it from a provider that userdata does not name")
