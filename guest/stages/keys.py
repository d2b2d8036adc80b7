"""Workload -> Keys: prove what runs here to the broker, receive the model key. The only way to a key from outside.

A model that is pushed into this guest can be sealed under a key that is made here, seen by nobody, and gone with the
guest. Then no broker is asked.
"""

import secrets
from dataclasses import dataclass, field

from guest.stages.measure import Workload
from guest.system import System
from strongroom.broker.resource import KEY_BYTES, ResourceURI, VolumeKey
from strongroom.errors import FormatError
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
    """Raises as BrokerSession.get() does, and FormatError when what the broker gave is no key for this model."""
    model = workload.config.model
    if model.key is None:
        return Keys(workload=workload, key=secrets.token_bytes(KEY_BYTES), release=None)
    session = await system.broker.session(workload.config.broker)
    with await session.get(ResourceURI.parse(model.key)) as secret:
        keys = _keys(workload, secret.reveal())
    event: JSON = {"resource": model.key, "broker_spki_sha256": session.broker_spki_sha256.hex()}
    await system.attester.extend("keys", pack_json(event))
    return keys


def _keys(workload: Workload, secret: bytes) -> Keys:
    model = workload.config.model
    if model.push is None:
        volume = VolumeKey.parse(secret)
        return Keys(workload=workload, key=volume.key, release=Release(volume.root, volume.epoch))
    if len(secret) != KEY_BYTES:
        raise FormatError(
            f"keys: {model.key} is no key of {KEY_BYTES} bytes, as sealing a pushed model takes"
        )
    return Keys(workload=workload, key=secret, release=None)
