"""Workload -> Keys: prove what runs here to the broker, receive the model key. The only way to get one."""

from dataclasses import dataclass, field

from guest.stages.measure import Workload
from guest.system import System
from strongroom.broker.resource import VolumeKey
from strongroom.host.release import release_key
from strongroom.wire.canonical import JSON, pack_json


@dataclass(frozen=True, slots=True)
class Keys:
    workload: Workload
    volume: VolumeKey = field(repr=False)


async def obtain_keys(system: System, workload: Workload) -> Keys:
    broker = workload.config.broker
    released = await release_key(
        url=broker.url,
        ca_pem=broker.ca_pem,
        spki_sha256=None if broker.spki_sha256 is None else bytes.fromhex(broker.spki_sha256),
        resource=workload.config.model.key,
        collect=system.attester.for_broker,
        deadline_s=broker.deadline_s,
    )
    event: JSON = {
        "resource": workload.config.model.key,
        "broker_spki_sha256": released.broker_spki_sha256.hex(),
    }
    await system.attester.extend("keys", pack_json(event))
    return Keys(workload=workload, volume=released.volume)
