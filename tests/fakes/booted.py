"""An agent that does the one part of a boot that programs of the machine see: `python -m tests.fakes.booted SEED PKI`.

Userdata is read and measured, its keys and rules go to the key socket by the stage that really does it, and the
silicon behind is simulated in memory. Run by a unit that is called as the real agent's.
"""

import asyncio
import sys
from pathlib import Path

from guest.__main__ import alongside
from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.grants import Grants
from guest.keysock.plan import UNIT
from guest.machine.listeners import inherited, wanted
from guest.machine.tsm import TSMReport
from guest.record import Record
from guest.stages.configure import configure
from guest.stages.keys import Keys
from guest.stages.measure import Workload
from guest.stages.sockets import open_sockets
from guest.system import System
from strongroom.host.notify import PING, notify
from tests.fakes.silicon import silicon


class FakeTSM:
    """guest.machine.tsm.TSM, minting in memory."""

    def __init__(self, pki: Path, host_data: bytes = bytes(32)) -> None:
        """Without `host_data` as of a launcher that commits to nothing."""
        self._chip = silicon(pki, host_data=host_data)

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        return TSMReport(self._chip.report(report_data), self._chip.certificates(), "sev_guest")


async def live(seed: Path, pki: Path) -> None:
    listeners = inherited()
    attester, grants = Attester(FakeTSM(pki)), Grants(UNIT)
    applications, broker = Applications(attester), KeyBroker(attester)
    system = System(
        seed=seed,
        engine_venv=seed,
        attester=attester,
        gpus=None,  # type: ignore[arg-type]
        grants=grants,
        record=Record(Path("/run/strongroom/boot.json")),
        applications=applications,
        broker=broker,
    )
    serving = (
        grants.serve(wanted(listeners, "credentials")),
        applications.serve(wanted(listeners, "applications")),
    )
    async with alongside(*serving), broker:
        workload = Workload(config=await configure(system), plan=None, measurement=b"")  # type: ignore[arg-type]
        await open_sockets(system, Keys(workload=workload, key=bytes(32), release=None))
        system.record.end("serving")
        notify("READY=1")
        while True:
            notify(PING)
            await asyncio.sleep(5)


if __name__ == "__main__":
    asyncio.run(live(*map(Path, sys.argv[1:])))
