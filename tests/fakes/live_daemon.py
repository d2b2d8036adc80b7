"""`python -m tests.fakes.live_daemon FRONT KIND STORE MOUNT [INTENTS]`: one front end over one operations class.

FRONT is raw or portable; KIND is plain, gocryptfs, or shared: a gocryptfs volume that other machines use too. Its
password is that of tests/fakes/gocryptfs.py. Prints "ready" once it serves, and a line for each report; ends at
SIGTERM.
"""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from sidecars.fs.live import portable
from sidecars.fs.live.mounted import mounted
from sidecars.fs.live.operations import Operations
from sidecars.fs.live.reports import once
from sidecars.fs.live.volume import open_volume
from strongroom.host.gocryptfs.directory import read_settings
from strongroom.sealed.gocryptfs.config import unlock
from tests.fakes.gocryptfs import PASSWORD
from tests.fakes.plain_operations import PlainOperations


def say(sentence: str) -> None:
    print(sentence, flush=True)


def operations(kind: str, store: Path, intents: Path, stack: ExitStack) -> Operations:
    if kind == "plain":
        return PlainOperations(store)
    master_key = unlock(read_settings(store), PASSWORD)
    shared = kind == "shared"
    return stack.enter_context(
        open_volume(store, master_key=master_key, intents=intents, report=once(say), shared=shared)
    )


def main() -> None:
    front, kind, store, mount, *rest = sys.argv[1:]
    intents = Path(rest[0]) if rest else Path(store + ".intents")
    os.umask(0)
    with ExitStack() as stack:
        served = operations(kind, Path(store), intents, stack)
        if front == "portable":
            served.init = lambda path: say("ready")  # type: ignore[method-assign]
            portable.run(served, Path(mount))
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        stack.enter_context(mounted(served, Path(mount), say, shared=kind == "shared"))
        say("ready")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
