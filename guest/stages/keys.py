"""Workload -> Keys: prove what runs here to the broker, receive the model key. The only way to a key from outside.

A model that is pushed into this guest can be sealed under a key that is made here, seen by nobody, and gone with the
guest. Then no broker is asked.
"""

import secrets
from dataclasses import dataclass, field

from guest.stages.measure import Workload
from guest.system import System
from strongroom.broker.resource import KEY_BYTES
from strongroom.errors import ConfigError, FormatError
from strongroom.host.release import Released, ReleasedKey, ReleasedSecret, release_key, release_secret
from strongroom.wire.canonical import JSON, pack_json


@dataclass(frozen=True, slots=True)
class Release:
    """Which sealed tree a key is for."""

    root: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Keys:
    workload: Workload
    key: bytes = field(repr=False)
    release: Release | None  # None for a model that is still to come


async def obtain_keys(system: System, workload: Workload) -> Keys:
    broker, model = workload.config.broker, workload.config.model
    if model.key is None:
        return Keys(workload=workload, key=secrets.token_bytes(KEY_BYTES), release=None)
    if broker is None:
        raise ConfigError("keys: a resource is named and no broker, want both")
    released: Released = await (release_key if model.push is None else release_secret)(
        url=broker.url,
        ca_pem=broker.ca_pem,
        spki_sha256=None if broker.spki_sha256 is None else bytes.fromhex(broker.spki_sha256),
        resource=model.key,
        collect=system.attester.for_broker,
        deadline_s=broker.deadline_s,
    )
    event: JSON = {
        "resource": model.key,
        "broker_spki_sha256": released.broker_spki_sha256.hex(),
    }
    await system.attester.extend("keys", pack_json(event))
    return _keys(workload, released)


def _keys(workload: Workload, released: Released) -> Keys:
    match released:
        case ReleasedKey(volume=volume):
            return Keys(workload=workload, key=volume.key, release=Release(volume.root, volume.epoch))
        case ReleasedSecret(secret=secret) if len(secret) == KEY_BYTES:
            return Keys(workload=workload, key=secret, release=None)
    raise FormatError(
        f"keys: {released.resource} is no key of {KEY_BYTES} bytes, as sealing a pushed model takes"
    )
