"""The key socket's process: `python -m guest.keysock`, started by systemd for whoever connects first.

Its sockets are there from the start of the machine. It is ready once the boot has keys to derive from, which is when
the agent hands its credentials over; who connects before then waits.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping
from socket import socket

from guest.keysock.agent import SOCKET, Agent
from guest.keysock.house import Doors
from guest.keysock.plan import MAX_PLAN, MAX_ROOT, PLAN, ROOT, Plan
from guest.keysock.server import House, listen
from guest.machine.listeners import inherited, wanted
from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential
from strongroom.host.life import place
from strongroom.host.notify import PING, notify, status, watchdog_interval


def main() -> int:
    try:
        plan = Plan.parse(read_credential(PLAN, max_bytes=MAX_PLAN))
        root = read_credential(ROOT, max_bytes=MAX_ROOT)
        asyncio.run(live(plan, root, inherited(), Agent(SOCKET)))
    except asyncio.CancelledError:
        return 0
    except StrongroomError as error:
        status(str(error))
        print(f"strongroom-keysock: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  our own defect, told without its text: it may hold a key
        print(f"strongroom-keysock: defect: {place(error)}", file=sys.stderr)
        return StrongroomError.exit_code
    return 0


async def live(plan: Plan, root: bytes, listeners: Mapping[str, socket], agent: Agent) -> None:
    """Serve until cancelled."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    if me is not None:
        loop.add_signal_handler(signal.SIGTERM, me.cancel)
    opened = await Doors.open(plan, root, agent)
    for register in opened.service.machine.gaps():
        print(
            f"strongroom-keysock: no log leads to register {register}: replaying it will not give it",
            flush=True,
        )
    house = House(known=plan.rights.names)
    servers = [
        await listen(wanted(listeners, name), house, door.handle, budget=door.budget)
        for name, door in opened.doors.items()
    ]
    try:
        notify("READY=1")
        while True:
            status(
                f"{house.count} connections, {house.served} requests answered, {house.refused} turned away"
            )
            notify(PING)
            await asyncio.sleep(watchdog_interval() or 10.0)
    finally:
        for server in servers:
            server.close()


if __name__ == "__main__":
    sys.exit(main())
