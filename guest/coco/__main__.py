"""The local REST's process: `python -m guest.coco`, started by the agent where userdata has a section `coco`.

It holds no secret for longer than an answer takes, and reaches nothing but the agent. On its unix socket a caller is
its unit, over loopback its uid.
"""

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Final

from guest.coco import loopback
from guest.coco.agent import Agent
from guest.coco.plan import MAX_PLAN, PLAN, Plan
from guest.coco.rest import Rest
from guest.coco.server import House, Who
from guest.keysock import callers
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.credentials import read_credential
from strongroom.host.life import place
from strongroom.host.notify import PING, notify, status, watchdog_interval

NAME: Final = "api.sock"
HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024


def main() -> int:
    try:
        plan = Plan.parse(read_credential(PLAN, max_bytes=MAX_PLAN))
        directory = Path(os.environ.get("RUNTIME_DIRECTORY", "/run/strongroom-coco"))
        with ExitStack() as stack:
            asyncio.run(
                live(House(Rest(plan, Agent(), version=_version())), listeners(plan, directory, stack))
            )
    except asyncio.CancelledError:
        return 0
    except StrongroomError as error:
        status(str(error))
        print(f"strongroom-coco: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  our own defect, told without its text: it may hold a secret
        print(f"strongroom-coco: defect: {place(error)}", file=sys.stderr)
        return StrongroomError.exit_code
    return 0


def listeners(plan: Plan, directory: Path, stack: ExitStack) -> list[tuple[socket.socket, Who]]:
    """A unix socket in `directory` for everybody, and the plan's port on loopback. MachineError."""
    path = directory / NAME
    try:
        path.unlink(missing_ok=True)
        local = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        local.bind(os.fspath(path))
        path.chmod(0o666)  # whoever connects is known: rules decide, not the mode of a file
        local.listen(_BACKLOG)
        found: list[tuple[socket.socket, Who]] = [(local, callers.caller_of)]
        if plan.port is not None:
            network = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            network.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            network.bind((HOST, plan.port))
            network.listen(_BACKLOG)
            found.append((network, loopback.caller_of))
    except OSError as error:
        raise MachineError(f"coco: cannot listen: {(error.strerror or 'failed').lower()}") from error
    return found


async def live(house: House, sockets: list[tuple[socket.socket, Who]]) -> None:
    """Serve until cancelled."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    if me is not None:
        loop.add_signal_handler(signal.SIGTERM, me.cancel)
    servers = [await house.listen(listener, who) for listener, who in sockets]
    try:
        notify("READY=1")
        while True:
            status(f"serving, {house.served} answers")
            notify(PING)
            await asyncio.sleep(watchdog_interval() or 10.0)
    finally:
        for server in servers:
            server.close()


def _version() -> str:
    try:
        return metadata.version("strongroom")
    except metadata.PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
