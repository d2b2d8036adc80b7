"""Becomes the engine: reads its plan from a credential, then replaces itself. Runs as the engine's own user.

    python -m guest.launch

It exists so that the engine's command line comes over the agent's socket instead of a file that somebody could edit.
"""

import json
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

from strongroom.errors import StrongroomError
from strongroom.host.credentials import read_credential

MAX_PLAN: Final = 64 << 10  # bytes


def main() -> NoReturn:
    try:
        plan = json.loads(read_credential("plan", max_bytes=MAX_PLAN))
    except StrongroomError as error:
        print(f"strongroom-engine: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    with suppress(FileNotFoundError):
        os.unlink(plan["socket"])  # vLLM refuses to bind to a path that an earlier one left behind
    os.umask(0o007)
    os.chdir(plan["environment"]["HOME"])
    os.execve(plan["argv"][0], plan["argv"], plan["environment"])


if __name__ == "__main__":
    main()
