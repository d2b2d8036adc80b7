"""strongroom-receive: take one model from a provider, then wait to be stopped.

Credentials: `receive` (config.py) and `model-key`, 32 raw bytes, under which the model is sealed as it comes.
"""

import asyncio
import logging
import os
import secrets
import sys
from typing import Final

from sidecars.receive.config import MAX_CREDENTIAL, ReceiveConfig
from sidecars.receive.receiver import Receiver
from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential, read_secret
from strongroom.host.life import place, until_stopped
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
            return asyncio.run(until_stopped(Receiver(config, key, entropy=secrets.token_bytes).run(), _log))
    except StrongroomError as error:
        print(f"strongroom-receive: {error}", file=sys.stderr)
        status(str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - our own defect, told without its text
        _log.error("defect: %s", place(error))
        return StrongroomError.exit_code


if __name__ == "__main__":
    sys.exit(main())
