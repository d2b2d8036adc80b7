"""strongroom-receive: take one model from a provider, then wait to be stopped.

Credentials: `receive` (config.py) and `model-key`, 32 raw bytes, under which the model is sealed as it comes.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from sidecars.receive.config import MAX_CREDENTIAL, ReceiveConfig
from sidecars.receive.receiver import Receiver
from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential, read_secret
from strongroom.host.notify import status
from strongroom.host.sealed.destination import Destination
from strongroom.sealed.keys import KEY_SIZE

_log: Final = logging.getLogger("strongroom.receive")


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    os.umask(0o022)  # ciphertext: whoever mounts it has another user
    try:
        config = ReceiveConfig.parse(read_credential("receive", max_bytes=MAX_CREDENTIAL))
        with Destination.hold(config.dest):
            pass  # a place nobody can write to is told before a provider comes
        with read_secret("model-key", length=KEY_SIZE) as key:
            return asyncio.run(_live(Receiver(config, key, entropy=secrets.token_bytes)))
    except StrongroomError as error:
        print(f"strongroom-receive: {error}", file=sys.stderr)
        status(str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - our own defect, told without its text
        _log.error("defect: %s", _place(error))
        return StrongroomError.exit_code


async def _live(receiver: Receiver) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    life = asyncio.create_task(receiver.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.cancel)
    try:
        await life
    except asyncio.CancelledError:
        return 0


def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log our own defects by kind and place only: an exception's text may hold a part of the model."""
    error = context.get("exception")
    _log.error("defect: %s", _place(error) if isinstance(error, BaseException) else "event loop trouble")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"


if __name__ == "__main__":
    sys.exit(main())
