"""strongroom-proxy: read the `door` credential, live the door's life, end with a sentence and an exit code.

python -m sidecars.proxy                                    the door
python -m sidecars.proxy --check-engine --engine-python P   the table of what an installed engine exposes
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidecars.proxy.door import Door
from sidecars.proxy.engine.drain import until_drained
from sidecars.proxy.engine.installed import DEFAULT_PYTHON, show_engine
from sidecars.proxy.plan import MAX_BYTES, Plan
from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential, read_secret
from strongroom.host.door.loop import run
from strongroom.host.life import place
from strongroom.receipts.keys import SECRET, DoorKeys

_RUNTIME: Final = "RUNTIME_DIRECTORY"
_log: Final = logging.getLogger("strongroom.proxy")


def main(arguments: Sequence[str] = ()) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        options = _options(arguments)
        if options.check_engine:
            return show_engine(options.engine_python, sys.stdout)
        plan = Plan.parse(read_credential("door", max_bytes=MAX_BYTES))
        with read_secret("door-secret", length=SECRET) as secret:
            keys = DoorKeys.from_secret(secret.reveal())
        directory = os.environ.get(_RUNTIME)
        door = Door(plan, keys, directory=Path(directory) if directory else None)
        return run(until_drained(door.run(), door.drain, _log))
    except StrongroomError as error:
        print(f"strongroom-proxy: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - our own defect, told without its text
        _log.error("defect: %s", place(error))
        return StrongroomError.exit_code


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="strongroom-proxy", description="The door, or a look at its engine."
    )
    parser.add_argument(
        "--check-engine", action="store_true", help="print what the installed engine exposes, and end"
    )
    parser.add_argument(
        "--engine-python", type=Path, default=DEFAULT_PYTHON, metavar="PATH", help="its Python (%(default)s)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
