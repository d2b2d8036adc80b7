"""An agent that only grants: `python -m tests.fakes.granting FOLDER`, where FOLDER/UNIT/NAME is what UNIT may load.

Run by a unit that is called as the real agent's; systemd asks it as it asks the real one.
"""

import asyncio
import sys
from pathlib import Path

from guest.grants import Grants
from guest.machine.listeners import inherited, wanted
from strongroom.host.notify import notify


def granted(folder: Path) -> Grants:
    grants = Grants()
    for path in folder.glob("*/*"):
        grants.grant(path.parent.name, path.name, path.read_bytes())
    return grants


async def live(grants: Grants) -> None:
    notify("READY=1")
    await grants.serve(wanted(inherited(), "credentials"))


if __name__ == "__main__":
    asyncio.run(live(granted(Path(sys.argv[1]))))
