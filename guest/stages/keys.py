"""Workload -> Keys: prove what runs here to the broker, receive the model key. The only way to a key from outside.

A model that is pushed into this guest can be sealed under a key that is made here, seen by nobody, and gone with the
guest. Then no broker is asked.
"""

import secrets
from dataclasses import dataclass, field

from guest.config import Broker, Config
from guest.stages.measure import Workload
from guest.system import System
from strongroom.broker.dialect import dialect_of
from strongroom.broker.resource import KEY_BYTES, ResourceURI, VolumeKey
from strongroom.errors import ConfigError, FormatError
from strongroom.host.fetch import Pin
from strongroom.host.release import BrokerSession, Speaking
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


def speaking(broker: Broker) -> Speaking:
    """How this broker is spoken to."""
    return Speaking(dialect=dialect_of(broker.protocol), hashes=(broker.hash,), init_data=broker.init_data)


async def broker_session(system: System, config: Config, *, deadline_s: float | None = None) -> BrokerSession:
    """The broker that userdata names, spoken to as they say; not yet entered. ConfigError where they name none."""
    broker = config.broker
    if broker is None:
        raise ConfigError("keys: a resource is named and no broker, want both")
    pinned = None if broker.spki_sha256 is None else bytes.fromhex(broker.spki_sha256)
    return BrokerSession(
        url=broker.url,
        pin=Pin(ca_pem=broker.ca_pem, spki_sha256=pinned),
        tee=await system.attester.broker_tee(),
        collect=system.attester.for_broker,
        deadline_s=broker.deadline_s if deadline_s is None else min(deadline_s, broker.deadline_s),
        speaking=speaking(broker),
    )


async def obtain_keys(system: System, workload: Workload) -> Keys:
    """Raises as BrokerSession.get() does, and FormatError when what the broker gave is no key for this model."""
    model = workload.config.model
    if model.key is None:
        return Keys(workload=workload, key=secrets.token_bytes(KEY_BYTES), release=None)
    async with await broker_session(system, workload.config) as session:
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
