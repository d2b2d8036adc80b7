"""Makes or removes the engine's network namespace: `python -m guest.namespace up|down`, a unit of its own.

It is a process apart so that the agent needs neither the right to mount nor the right to configure networks.
"""

import sys
from typing import Final

from guest.machine import netns
from strongroom.errors import StrongroomError

NAME: Final = "strongroom-engine"
_USAGE: Final = 2


def main(argv: list[str]) -> int:
    actions = {"up": netns.create, "down": netns.remove}
    if len(argv) != 1 or argv[0] not in actions:
        print("usage: python -m guest.namespace up|down", file=sys.stderr)
        return _USAGE
    try:
        actions[argv[0]](NAME)
    except StrongroomError as error:
        print(f"strongroom-netns: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
