"""strongroom-proxy: read the `door` credential, live the door's life, end with a sentence and an exit code."""

import asyncio
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from sidecars.proxy.door import Door
from sidecars.proxy.plan import MAX_BYTES, Plan
from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential

_RUNTIME: Final = "RUNTIME_DIRECTORY"
_log: Final = logging.getLogger("strongroom.proxy")


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        plan = Plan.parse(read_credential("door", max_bytes=MAX_BYTES))
        directory = os.environ.get(_RUNTIME)
        door = Door(plan, admin=Path(directory) / "admin.sock" if directory else None)
        return asyncio.run(_live(door))
    except StrongroomError as error:
        print(f"strongroom-proxy: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - our own defect, told without its text
        _log.error("defect: %s", _place(error))
        return StrongroomError.exit_code


async def _live(door: Door) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    life = asyncio.create_task(door.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.cancel)
    try:
        return await life
    except asyncio.CancelledError:
        return 0


def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log our own defects by kind and place only: an exception's text may hold a prompt."""
    error = context.get("exception")
    _log.error("defect: %s", _place(error) if isinstance(error, BaseException) else "event loop trouble")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"


if __name__ == "__main__":
    sys.exit(main())
