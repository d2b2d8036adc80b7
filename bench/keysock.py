"""Half of `make bench-keys`: what one GetKey of the local key socket takes, from dstack's own SDK and from less.

The server is a process of its own with everything that the product's has, over a simulated chip, on one core; the
client is on another where there is one. "per core" is how many calls one core's time of the server would answer: the
calls over the CPU time they took there, whatever the client could do meanwhile. A call's time is the client's, from
asking to having the answer.
"""

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strongroom.cli.terminal import table
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.run import PIPE, Child, spawn

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = 2000  # calls a second and core
RAW_CALLS: Final = 20_000
COLD_CALLS: Final = 2_000
SDK_CALLS: Final = 3_000
SIDE_BY_SIDE: Final = 16  # connections that ask at once
WARM_UP: Final = 200
_READY: Final = 60.0  # seconds
_CPU_OF_PROCESS: Final = (
    2  # CPUCLOCK_SCHED: its process's CPU time, in a clock id made of its pid (clock_getcpuclockid)
)

Call = Callable[[int], None]
"""Makes the nth call and waits for its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    what: str
    calls: int
    latencies: tuple[float, ...]  # seconds, of each call
    wall: float  # seconds, of all of them
    server: float  # seconds of CPU
    client: float

    @property
    def per_core(self) -> float:
        return self.calls / self.server

    @property
    def limit(self) -> str:
        """Which side was busy, of the time that all calls took."""
        sides = {"server": self.server / self.wall, "client": self.client / self.wall}
        busiest = max(sides, key=lambda side: sides[side])
        return f"{busiest} {100 * sides[busiest]:.0f} %"

    def percentile(self, percent: int) -> float:
        """Milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] * 1e3

    def row(self) -> tuple[str, ...]:
        return (
            self.name,
            f"{self.percentile(50):.3f}",
            f"{self.percentile(99):.3f}",
            f"{self.calls / self.wall:.0f}",
            f"{self.per_core:.0f}",
            self.limit,
            self.what,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "p50_ms": round(self.percentile(50), 4),
            "p99_ms": round(self.percentile(99), 4),
            "calls_per_s": round(self.calls / self.wall),
            "calls_per_s_per_core": round(self.per_core),
            "server_us": round(1e6 * self.server / self.calls, 1),
            "client_us": round(1e6 * self.client / self.calls, 1),
        }


@dataclass(frozen=True, slots=True)
class Server:
    directory: Path
    pid: int

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.sock"

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the process has taken so far."""
        return time.clock_gettime((~self.pid << 3) | _CPU_OF_PROCESS)


@contextmanager
def serving() -> Iterator[Server]:
    """The key socket on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory(prefix="bench-keysock-") as directory,
        spawn([sys.executable, "-m", "tests.fakes.keysock", directory], cwd=ROOT, stdout=PIPE) as child,
    ):
        if child.line(_READY) != b"ready":
            raise MachineError("bench: the key socket is not ready")
        _pin(child, cores[0])
        os.sched_setaffinity(0, {cores[-1]})
        try:
            yield Server(Path(directory), child.pid)
        finally:
            os.sched_setaffinity(0, cores)


def _pin(child: Child, core: int) -> None:
    for thread in Path(f"/proc/{child.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def measure(server: Server) -> Iterator[Figure]:
    """Each way to call, one after the other."""
    with ExitStack() as stack:
        raw = stack.enter_context(closing(Raw(server.path("dstack"))))
        yield _figure(
            "raw", "one connection kept, one path", server, RAW_CALLS, lambda _: raw.ask(_get_key("bench"))
        )
        yield _figure(
            "raw-cold",
            "the same, a path that was never asked for each time",
            server,
            COLD_CALLS,
            lambda n: raw.ask(_get_key(f"bench/{n}")),
        )
        agent = stack.enter_context(closing(Raw(server.path("agent"))))
        body = b'{"path":"bench"}'
        yield _figure(
            "own", "our own interface's /v1/keys, one connection", server, RAW_CALLS,
            lambda _: agent.ask(_request("/v1/keys", body)),
        )  # fmt: skip
    yield _figure("raw-new", "a connection for each call", server, COLD_CALLS, lambda _: _once(server))
    yield _side_by_side(server)
    yield from _sdk(server)


class Raw:
    """The least that a client has to do: one write, one read."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))

    def ask(self, request: bytes) -> None:
        self.send(request)
        self.receive()

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def receive(self) -> None:
        answer = self.socket.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise MachineError(f"bench: got {answer[:120]!a}, want a key")

    def close(self) -> None:
        self.socket.close()


def _request(target: str, body: bytes) -> bytes:
    """As dstack's SDK words it."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
        "Connection: keep-alive\r\nUser-Agent: dstack-sdk-python/0.5.4\r\n"
        f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
    )
    return head.encode() + body


def _get_key(path: str) -> bytes:
    return _request(
        "/GetKey",
        json.dumps({"path": path, "purpose": "", "algorithm": "secp256k1"}, separators=(",", ":")).encode(),
    )


def _once(server: Server) -> None:
    with closing(Raw(server.path("dstack"))) as raw:
        raw.ask(_get_key("bench"))


def _side_by_side(server: Server) -> Figure:
    """Every connection asks before any is listened to: the server always has something to do."""
    with ExitStack() as stack:
        every = [stack.enter_context(closing(Raw(server.path("dstack")))) for _ in range(SIDE_BY_SIDE)]
        request = _get_key("bench")

        def call(_: int) -> None:
            for raw in every:
                raw.send(request)
            for raw in every:
                raw.receive()

        what = f"{SIDE_BY_SIDE} connections that ask at once"
        return _figure("raw-many", what, server, RAW_CALLS // SIDE_BY_SIDE, call, each=SIDE_BY_SIDE)


def _sdk(server: Server) -> Iterator[Figure]:
    try:
        import dstack_sdk  # noqa: PLC0415  a client to measure with, where it is installed
    except ImportError:
        return
    client: Any = dstack_sdk.DstackClient(endpoint=str(server.path("dstack")))
    client.__enter__()  # what it gives is its other half, for async callers
    what = (
        f"dstack-sdk's DstackClient, its module in Python {sys.version_info.major}.{sys.version_info.minor}"
    )
    yield _figure("sdk", what, server, SDK_CALLS, lambda _: client.get_key("bench"))
    client.__exit__(None, None, None)
    loop = asyncio.new_event_loop()
    patient: Any = dstack_sdk.AsyncDstackClient(endpoint=str(server.path("dstack")))

    async def entered() -> Any:
        return await patient.__aenter__()

    try:
        kept = loop.run_until_complete(entered())
        what = "dstack-sdk's AsyncDstackClient, one connection kept"
        yield _figure(
            "sdk-async", what, server, SDK_CALLS, lambda _: loop.run_until_complete(kept.get_key("bench"))
        )
        loop.run_until_complete(patient.__aexit__(None, None, None))
    finally:
        loop.close()


def _figure(name: str, what: str, server: Server, calls: int, call: Call, *, each: int = 1) -> Figure:
    """`each` is how many answers one call waits for."""
    for n in range(min(WARM_UP, calls)):
        call(-n - 1)
    latencies: list[float] = []
    served, asked, begun = server.cpu, time.process_time(), time.perf_counter()
    for n in range(calls):
        started = time.perf_counter()
        call(n)
        latencies.append(time.perf_counter() - started)
    wall = time.perf_counter() - begun
    return Figure(
        name=name,
        what=what,
        calls=calls * each,
        latencies=tuple(latencies),
        wall=wall,
        server=server.cpu - served,
        client=time.process_time() - asked,
    )


def main() -> int:
    try:
        with serving() as server:
            figures = list(measure(server))
    except StrongroomError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    header = ("GetKey", "p50 ms", "p99 ms", "calls/s", "per core", "busiest", f"(target {TARGET} a core)")
    print(table([header, *(figure.row() for figure in figures)]))
    found = {figure.name: figure.to_json() for figure in figures}
    print(json.dumps({"bench": "keysock", "target_calls_per_s_per_core": TARGET, "figures": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
