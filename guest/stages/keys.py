"""Workload -> Keys: prove what runs here to the broker, receive the model key. The only way to get one."""

from dataclasses import dataclass, field

from guest.config import Broker
from guest.stages.measure import Workload
from guest.system import System
from strongroom.broker.dialect import dialect_of
from strongroom.broker.resource import VolumeKey
from strongroom.host.release import Speaking, release_key
from strongroom.wire.canonical import JSON, pack_json


@dataclass(frozen=True, slots=True)
class Keys:
    workload: Workload
    volume: VolumeKey = field(repr=False)


def speaking(broker: Broker) -> Speaking:
    """How this broker is spoken to."""
    return Speaking(dialect=dialect_of(broker.protocol), hashes=(broker.hash,), init_data=broker.init_data)


async def obtain_keys(system: System, workload: Workload) -> Keys:
    broker = workload.config.broker
    released = await release_key(
        url=broker.url,
        ca_pem=broker.ca_pem,
        spki_sha256=None if broker.spki_sha256 is None else bytes.fromhex(broker.spki_sha256),
        resource=workload.config.model.key,
        tee=await system.attester.broker_tee(),
        collect=system.attester.for_broker,
        deadline_s=broker.deadline_s,
        speaking=speaking(broker),
    )
    event: JSON = {
        "resource": workload.config.model.key,
        "broker_spki_sha256": released.broker_spki_sha256.hex(),
    }
    await system.attester.extend("keys", pack_json(event))
    return Keys(workload=workload, volume=released.volume)
