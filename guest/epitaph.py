"""Completes the boot record of an agent that could not do so itself: `python -m guest.epitaph`, an ExecStopPost=.

systemd says in the environment how the agent ended (systemd.exec(5), $SERVICE_RESULT).
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

RECORD: Final = Path("/run/strongroom/boot.json")
_FINAL: Final = {"failed", "stopped"}


def main(path: Path = RECORD) -> int:
    with suppress(OSError, ValueError):  # no record, or none that can be read: nothing to complete
        content = json.loads(path.read_text())
        if content.get("state") not in _FINAL:
            result, status = os.environ.get("SERVICE_RESULT", ""), os.environ.get("EXIT_STATUS", "")
            content |= {"state": "failed", "error": f"agent: ended by {result} {status}".rstrip()}
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(content, indent=1) + "\n")
            temporary.replace(path)
            print(content["error"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
