"""The one path from userdata to an open door.

Each stage takes what the stage before it made, and nobody else can make it: a different order does not type-check.
"""

from guest.stages.certify import certify
from guest.stages.coco import open_coco
from guest.stages.configure import configure
from guest.stages.gpu import gpus_ready
from guest.stages.keys import obtain_keys
from guest.stages.measure import measure
from guest.stages.mount import mount
from guest.stages.receive import receive
from guest.stages.serve import Serving, serve
from guest.stages.sockets import open_sockets
from guest.stages.tunnel import tunnel
from guest.stages.volumes import mount_volumes
from guest.system import System


async def boot(system: System) -> Serving:
    """Raises StrongroomError at the first stage that fails; the record then holds its sentence."""
    stage = system.record.stage
    config = await stage("configure", configure(system))
    workload = await stage("measure", measure(system, config))
    keys = await stage("keys", obtain_keys(system, workload))
    sockets = await stage("sockets", open_sockets(system, keys))
    state = await stage("volumes", mount_volumes(system, sockets))
    model = await stage("receive", receive(system, state))
    volumes = await stage("mount", mount(system, model))
    await open_coco(system, volumes)
    identity = await stage("certify", certify(system, volumes))
    network = await stage("tunnel", tunnel(system, identity))
    gpus = await stage("gpu", gpus_ready(system, network))
    return await stage("serve", serve(system, gpus))
