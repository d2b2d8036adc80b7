"""`make bench-keys`, one half: what a key from the broker costs.

The broker is a process of its own, as a site runs it: TLS, its database and its audit log on disk. The guest asks over
loopback, on simulated silicon, whose own time is left out; the broker verifies all of its evidence. Measured are a
handshake with two resources, one resource in an open session, and handshakes a second. The last line is one JSON
object.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strongroom.broker.exchange import Collect
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.cli.terminal import table
from strongroom.errors import StrongroomError
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.host.fetch import Pin
from strongroom.host.release import BrokerSession, KeyKind, Speaking
from strongroom.host.run import PIPE, run, spawn
from tests import ROOT
from tests.fakes.kbs import Machine
from tests.fakes.silicon import silicon

ROUNDS: Final = 100
TARGET_MS: Final = 10.0
URIS: Final = tuple(ResourceURI.parse(f"kbs:///default/model/bench-{n}") for n in range(2))
_STRONGROOM: Final = (sys.executable, "-m", "strongroom", "broker")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Broker:
    url: str
    spki_sha256: bytes
    pid: int

    def cpu_seconds(self) -> float:
        """What the broker's process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    what: str
    milliseconds: tuple[float, ...]
    target: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        return sorted(self.milliseconds)[int(len(self.milliseconds) * 0.99)]

    def row(self) -> tuple[str, ...]:
        target = "-" if self.target is None else f"{self.target:.0f}"
        return (self.name, f"{self.median:.2f}", f"{self.p99:.2f}", target, self.what)


@contextmanager
def serving(directory: Path) -> Iterator[Broker]:
    """A broker with two resources, which believes the simulated silicon."""
    machine, at = silicon(), directory / "broker"
    policy = {
        "version": 1,
        "measurements": [{"name": "bench", "value": machine.measurement.hex()}],
        "host_data": [machine.host_data.hex()],
        "insecure_simulated_roots": [machine.pki.ark_sha256.hex()],
    }
    (directory / "policy.yaml").write_text(json.dumps(policy))
    (directory / "key").write_bytes(VolumeKey(key=bytes(32), root=bytes(32), epoch=1).pack())
    run([*_STRONGROOM, "init", str(at), "--name", "127.0.0.1"], cwd=ROOT)
    for uri in URIS:
        files = (str(directory / "key"), "--policy", str(directory / "policy.yaml"))
        run([*_STRONGROOM, "put", str(at), str(uri), *files], cwd=ROOT)
    limits = ("--handshakes", "1000000", "--rate", "1000000")
    argv = [*_STRONGROOM, "serve", str(at), "--listen", "127.0.0.1:0", "--json", *limits]
    with (directory / "log").open("wb") as log, spawn(argv, cwd=ROOT, stdout=PIPE, stderr=log) as child:
        ready = json.loads(child.line(60))
        yield Broker(ready["url"], bytes.fromhex(ready["spki_sha256"]), child.pid)
        child.signal(signal.SIGTERM)
        child.wait(10)


def _session(broker: Broker, key: KeyKind, pauses: list[float]) -> BrokerSession:
    machine = Machine()

    async def collect(asked: Collect) -> CompositeEvidence:
        # What the silicon takes is not the broker's, nor ours: it is left out of the time.
        begun = time.perf_counter()
        evidence = machine(asked)
        pauses.append(time.perf_counter() - begun)
        return evidence

    return BrokerSession(
        url=broker.url,
        pin=Pin(spki_sha256=broker.spki_sha256),
        tee="snp",
        collect=collect,
        deadline_s=30,
        speaking=Speaking(key=key),
    )


async def _exchanges(broker: Broker, rounds: int, key: KeyKind) -> tuple[float, ...]:
    """Milliseconds of a handshake and two resources, connection included."""
    found: list[float] = []
    for _ in range(rounds):
        pauses: list[float] = []
        begun = time.perf_counter()
        async with _session(broker, key, pauses) as session:
            for uri in URIS:
                (await session.get(uri)).wipe()
            taken = time.perf_counter() - begun
        found.append((taken - sum(pauses)) * 1e3)
    return tuple(found)


async def _questions(broker: Broker, rounds: int) -> tuple[float, ...]:
    """Milliseconds of one resource in an open session."""
    found: list[float] = []
    async with _session(broker, "ECDH-ES+A256KW-P256", []) as session:
        for _ in range(rounds):
            begun = time.perf_counter()
            (await session.get(URIS[0])).wipe()
            found.append((time.perf_counter() - begun) * 1e3)
    return tuple(found[1:])


async def _storm(broker: Broker, guests: int, seconds: float) -> tuple[int, float, float]:
    """Handshakes that `guests` made in that time, the time it was, and the broker's own CPU seconds."""
    begun, cpu, made = time.perf_counter(), broker.cpu_seconds(), 0

    async def guest() -> None:
        nonlocal made
        while time.perf_counter() - begun < seconds:
            async with _session(broker, "ECDH-ES+A256KW-P256", []) as session:
                await session.admission()
            made += 1

    await asyncio.gather(*(guest() for _ in range(guests)))
    return made, time.perf_counter() - begun, broker.cpu_seconds() - cpu


def measure(broker: Broker, rounds: int) -> Iterator[Figure]:
    asyncio.run(_exchanges(broker, 3, "ECDH-ES+A256KW-P256"))  # both ends have seen each other
    kinds: tuple[tuple[str, KeyKind, float | None, int], ...] = (
        ("exchange", "ECDH-ES+A256KW-P256", TARGET_MS, rounds),
        ("exchange-p521", "ECDH-ES+A256KW-P521", None, rounds // 2),
        ("exchange-rsa", "RSA-OAEP-256", None, rounds // 5),
    )
    for name, kind, target, count in kinds:
        what = f"tls, handshake, verification, two resources; guest's key {kind}"
        yield Figure(name, what, asyncio.run(_exchanges(broker, max(count, 5), kind)), target)
    yield Figure("question", "one resource in an open session", asyncio.run(_questions(broker, rounds)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.broker", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the storm of handshakes")
    args = parser.parse_args(argv)
    try:
        return _main(args.rounds, args.seconds)
    except StrongroomError as error:
        print(f"bench.broker: {error}", file=sys.stderr)
        return error.exit_code


def _main(rounds: int, seconds: float) -> int:
    silicon()  # its authority is made before any clock runs
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as work, serving(Path(work)) as broker:
        figures = list(measure(broker, rounds))
        guests = max(1, (os.cpu_count() or 2) - 1) * 2
        made, took, cpu = asyncio.run(_storm(broker, guests, seconds))
    print(table([("kind", "median ms", "p99 ms", "at most", "what"), *(figure.row() for figure in figures)]))
    rate, core = made / took, made / cpu if cpu else 0.0
    print(
        f"\n{rate:.0f} handshakes a second with {guests} guests, {core:.0f} in each core-second of the broker"
    )
    handshakes = {"guests": guests, "per_second": round(rate, 1), "per_core_second": round(core, 1)}
    said = {"bench": "broker", "unit": "ms", "rounds": rounds}
    print(json.dumps(said | {"figures": _json(figures), "handshakes": handshakes}))
    return 0


def _json(figures: list[Figure]) -> dict[str, Any]:
    return {
        figure.name: {
            "median": round(figure.median, 3),
            "p99": round(figure.p99, 3),
            **({} if figure.target is None else {"target": figure.target}),
        }
        for figure in figures
    }


if __name__ == "__main__":
    sys.exit(main())
