"""An agent that boots as far as to the mounted model: `python -m tests.fakes.pushed_into SEED PKI ENGINE`.

Every stage is the real one, from userdata to the mount, and the silicon behind is simulated in memory. What would serve
the model is left out. Whether it is pushed, and what else there is, userdata say. Run by a unit that is called as the
real agent's.
"""

import asyncio
import sys
from hashlib import sha256
from pathlib import Path

from guest import evidence
from guest.__main__ import alongside
from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.gpus import GPUs
from guest.grants import Grants
from guest.judge import judge
from guest.keysock.plan import UNIT
from guest.machine.listeners import inherited, wanted
from guest.record import Record, sentence
from guest.stages.configure import configure
from guest.stages.keys import obtain_keys
from guest.stages.measure import measure
from guest.stages.mount import mount
from guest.stages.receive import receive
from guest.stages.sockets import open_sockets
from guest.stages.volumes import mount_volumes
from guest.system import System
from strongroom.errors import StrongroomError
from strongroom.host.notify import PING, notify
from tests.fakes.booted import FakeTSM


async def boot(system: System) -> None:
    stage = system.record.stage
    config = await stage("configure", configure(system))
    workload = await stage("measure", measure(system, config))
    keys = await stage("keys", obtain_keys(system, workload))
    sockets = await stage("sockets", open_sockets(system, keys))
    state = await stage("volumes", mount_volumes(system, sockets))
    model = await stage("receive", receive(system, state))
    await stage("mount", mount(system, model))


async def live(seed: Path, pki: Path, engine: Path) -> None:
    listeners = inherited()
    launched = sha256((seed / "user-data").read_bytes()).digest()
    attester, grants = Attester(FakeTSM(pki, host_data=launched)), Grants(UNIT)
    applications, broker = Applications(attester), KeyBroker(attester)
    system = System(
        seed=seed,
        engine_venv=engine,
        attester=attester,
        gpus=GPUs(judge()),
        grants=grants,
        record=Record(Path("/run/strongroom/boot.json")),
        applications=applications,
        broker=broker,
    )
    serving = (
        grants.serve(wanted(listeners, "credentials")),
        evidence.serve(wanted(listeners, "evidence"), attester),
        applications.serve(wanted(listeners, "applications")),
    )
    async with alongside(*serving), broker:
        try:
            await boot(system)
        except StrongroomError as error:  # the machine stays up, for the test to look at
            system.record.end("failed", error)
            print(f"pushed_into: {sentence(error)}", file=sys.stderr, flush=True)
        else:
            system.record.end("serving")
        notify("READY=1")
        while True:
            notify(PING)
            await asyncio.sleep(5)


if __name__ == "__main__":
    asyncio.run(live(*map(Path, sys.argv[1:])))
