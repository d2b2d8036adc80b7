"""strongroom-proxy: read the `door` credential, live the door's life, end with a sentence and an exit code."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Final

from sidecars.proxy.door import Door
from sidecars.proxy.plan import MAX_BYTES, Plan
from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential
from strongroom.host.life import place, until_stopped

_RUNTIME: Final = "RUNTIME_DIRECTORY"
_log: Final = logging.getLogger("strongroom.proxy")


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        plan = Plan.parse(read_credential("door", max_bytes=MAX_BYTES))
        directory = os.environ.get(_RUNTIME)
        door = Door(plan, admin=Path(directory) / "admin.sock" if directory else None)
        return asyncio.run(until_stopped(door.run(), _log))
    except StrongroomError as error:
        print(f"strongroom-proxy: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - our own defect, told without its text
        _log.error("defect: %s", place(error))
        return StrongroomError.exit_code


if __name__ == "__main__":
    sys.exit(main())
