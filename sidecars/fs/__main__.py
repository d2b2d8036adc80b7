"""`python -m sidecars.fs`: mount one sealed model, serve it, unmount it at SIGTERM.

Credentials: `volume` (config.py) and `model-key`, 32 raw bytes. A failure is one line on stderr and the exit code of
its class.
"""

import os
import resource
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from sidecars.fs.config import MAX_CREDENTIAL, VolumeConfig
from sidecars.fs.device import Server, open_device
from sidecars.fs.mounting import clear, mount, raise_read_ahead, unmount
from sidecars.fs.operations import Operations
from sidecars.fs.reading import ChunkReader
from sidecars.fs.tree import Tree
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.credentials import read_credential, read_secret
from strongroom.host.notify import notify, status, watchdog_interval
from strongroom.host.sealed_tree import SealedTree
from strongroom.sealed.keys import KEY_SIZE

THREADS: Final = 2
_STOP: Final = {signal.SIGTERM, signal.SIGINT}
_LOOK: Final = 1.0  # seconds between looks at the threads
_PATIENCE: Final = 30.0  # seconds a request may take before the status says so


def main() -> int:
    try:
        with ExitStack() as stack:
            config = VolumeConfig.parse(read_credential("volume", max_bytes=MAX_CREDENTIAL))
            failures = SimpleQueue[str]()
            server, serving = _serve(config, failures, stack)
            _watch(server, failures, serving)
            notify("STOPPING=1")
    except StrongroomError as error:
        return _failed(error)
    except OSError as error:
        return _failed(MachineError(f"{error.filename or 'kernel'}: {(error.strerror or 'failed').lower()}"))
    return 0


def _failed(error: StrongroomError) -> int:
    _say(str(error))
    status(str(error))
    return error.exit_code


def _say(sentence: str) -> None:
    print(f"strongroom-fs: {sentence}", file=sys.stderr, flush=True)


def _serve(config: VolumeConfig, failures: SimpleQueue[str], stack: ExitStack) -> tuple[Server, str]:
    """Mount and answer: the server, and the status of a sound one. What has to be undone is left on the stack."""
    clear(config.mount)
    _allow_open_files()
    with read_secret("model-key", length=KEY_SIZE) as key:
        sealed = stack.enter_context(
            SealedTree.open(config.source, model_key=key.view(), epoch=config.epoch, root=config.root)
        )
    chunk_size = sealed.header.chunk_size
    objects = {stored.file.object_id: stored for stored in sealed.objects}
    readers = [ChunkReader(objects, chunk_size=chunk_size) for _ in range(THREADS)]
    tree = Tree.build(sealed.manifest, chunk_size=chunk_size, uid=config.uid)
    device = open_device()
    stack.callback(os.close, device)

    def report(sentence: str) -> None:
        _say(sentence)
        failures.put(sentence)

    server = Server(device, Operations(tree), report)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # from here on a stop must unmount
    mount(config.mount, device)
    stack.callback(server.join, 0.2)
    stack.callback(unmount, config.mount)
    server.greet()
    server.start(readers)
    _confirm(config.mount)
    manifest = sealed.manifest
    serving = f"serving {manifest.name} epoch {config.epoch}, {len(manifest.entries)} entries"
    notify(f"READY=1\nSTATUS={serving}")
    return server, serving


def _confirm(point: Path) -> None:
    """Ask through the kernel, as the engine will."""
    try:
        os.statvfs(point)
    except OSError as error:
        raise MachineError(f"mount {point}: {(error.strerror or 'failed').lower()}") from error
    if not raise_read_ahead(point):
        _say(f"mount {point}: read-ahead stays at the kernel's default, reads will be slow")


def _watch(server: Server, failures: SimpleQueue[str], serving: str) -> None:
    """Return at a stop signal. Only this thread talks to the service manager, which may be slow.

    A failure stays in the status: nothing after it says "serving" again.
    """
    ping, sound, slow = watchdog_interval(), True, False
    while server.alive:
        if signal.sigtimedwait(_STOP, min(_LOOK, ping or _LOOK)) is not None:
            return
        if ping is not None:
            notify("WATCHDOG=1")
        while not failures.empty():
            sound = False
            status(failures.get())
        if sound and slow is not (server.longest_wait > _PATIENCE):
            slow = not slow
            status(f"{serving}; the store has not answered for {_PATIENCE:g} s" if slow else serving)
    raise MachineError("mount: no longer served, want it until we are stopped")


def _allow_open_files() -> None:
    """Every object stays open: take all the descriptors the unit may have, where it may take them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # a system call filter; should they run out, the object is named
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
