"""A real vLLM with the flags and variables of the guest, over the demo's tiny model, on a socket of the test's own."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from guest import engine
from guest.config import parse
from guest.userdata import Userdata
from strongroom.host.run import Child, run, spawn
from strongroom.wire.canonical import parse_json
from tests import ROOT, need
from tests.unit.guest.test_config import good, text

VENV: Final = ROOT / "build" / "engine"
START: Final = 420.0  # seconds; imports alone take a minute on a busy machine


@dataclass(frozen=True)
class RealEngine:
    socket: Path
    log: Path
    scratch: Path
    child: Child

    def get(self, target: str) -> bytes:
        """What the engine itself answers on its private socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.socket))
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head[:40]
        return body

    def metric(self, name: str) -> float:
        """The sum of one family of its counters or gauges."""
        lines = self.get("/metrics/").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.partition("{")[0] == name)

    def children(self) -> list[int]:
        """Its process and every one that it started."""
        found = [self.child.pid]
        for pid in found:
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def kill(self) -> None:
        """All of it at once, as its unit does."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)


@contextmanager
def real_engine(directory: Path) -> Iterator[RealEngine]:
    """A healthy engine listening at `directory`/engine."""
    need((VENV / ".recipe").exists(), "no build/engine: run ./setup.sh engine")
    model, scratch, at = directory / "model", directory / "scratch", directory / "engine"
    scratch.mkdir()
    run([VENV / "bin" / "python", ROOT / "demo" / "model.py", model], timeout=300.0)
    made = engine.plan(parse(Userdata.of(text(good()))), VENV)
    plan: Any = parse_json(made.credential(), "plan")
    places = {engine.MOUNT: str(model), engine.SOCKET: str(at)}
    argv = [places.get(word, word) for word in plan["argv"]]
    environment = {
        name: value.replace(engine.SCRATCH, str(scratch)) for name, value in plan["environment"].items()
    }
    log, began = directory / "engine.log", time.time()
    with (
        log.open("wb") as written,
        spawn(argv, env=environment, cwd=scratch, stdout=written, stderr=written) as child,
    ):
        found = RealEngine(at, log, scratch, child)
        try:
            _wait(found)
            yield found
        finally:
            found.kill()
            child.wait(10)
            _clear(began)


def _wait(found: RealEngine) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if found.child.wait(0.5) is not None:
            break
        with suppress(OSError):
            found.get("/health")
            return
    raise AssertionError(f"the engine did not start: {found.log.read_text()[-4000:]}")


def _clear(began: float) -> None:
    """Remove the shared memory that a killed engine leaves; a unit's own user loses it by RemoveIPC=."""
    mapped = ""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            mapped += maps.read_text()
    for path in Path("/dev/shm").glob("*"):
        if path.name.startswith(("psm_", "sem.mp-")) and str(path) not in mapped:
            with suppress(FileNotFoundError):
                if path.stat().st_ctime >= began:
                    path.unlink()


def described(found: RealEngine) -> Any:
    return json.loads(found.get("/openapi.json"))
