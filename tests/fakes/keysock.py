"""The key socket with everything behind it, in a thread of the test: the real agent's side over simulated machines.

`python -m tests.fakes.keysock DIRECTORY [snp|tdx|vtpm]` serves its four sockets in DIRECTORY until it is ended.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256, sha384
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from demo.silicon.vtpm import vtpm
from guest.applications import Applications
from guest.attester import Attester
from guest.keysock.agent import Agent
from guest.keysock.house import Doors
from guest.keysock.plan import UNIT, Origin, Plan
from guest.keysock.rights import Method, Rights, Rule
from guest.keysock.server import House, listen
from guest.machine.rtmr import RTMR
from guest.machine.tsm import TSMReport
from strongroom.evidence.dstack_log import Log, LogEntry, replay
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.hcl import ReportType
from tests.fakes.exchange import events
from tests.fakes.intel import BODY, Platform
from tests.fakes.silicon import silicon
from tests.unit.guest.test_attester_tpm import Absent, Hosted, on_azure

USERDATA: Final = "#cloud-config\nstrongroom:\n  version: 1\n"
ROOT: Final = bytes(range(32))
BACKENDS: Final = ("snp", "tdx", "vtpm")
SOCKETS: Final = ("dstack", "tappd", "quote", "agent")
EVERYTHING: Final = Rule(methods=frozenset(Method), paths=("*",), sign=("*",), raw_quote=True)
ORIGIN: Final = Origin(kind="ephemeral", epoch=3)


class FakeTSM:
    """guest.machine.tsm.TSM, minting in memory."""

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        chip = silicon()
        return TSMReport(chip.report(report_data), chip.certificates(), "sev_guest")


def firmware() -> Log:
    """What a firmware measures into the first three registers."""
    said = ((0, "firmware"), (0, "ACPI DATA"), (1, "kernel"), (2, "initrd"), (2, "command line"))
    return tuple(
        LogEntry(imr=imr, event_type=0x80000001, digest=sha384(name.encode()).digest(), event="", payload=b"")
        for imr, name in said
    )


def ccel() -> bytes:
    """The same as the firmware hands it over: the area is larger than the log."""
    announced = b"Spec ID Event03\0" + bytes(8) + bytes.fromhex("01000000 0c003000 00")
    log = bytes(4) + b"\3\0\0\0" + bytes(20) + _sized(announced)
    for entry in firmware():
        head = (entry.imr + 1, entry.event_type, 1)
        log += (
            b"".join(number.to_bytes(4, "little") for number in head)
            + b"\x0c\0"
            + entry.digest
            + _sized(b"x")
        )
    return log + b"\xff" * 64


def _sized(event: bytes) -> bytes:
    return len(event).to_bytes(4, "little") + event


class FakeTD(RTMR):
    """A TD: its registers and its quotes. The fourth register takes extensions, as the kernel's does."""

    def __init__(self) -> None:
        self.third = bytes(48)

    def extend(self, digest: bytes, index: int = 3) -> None:
        self.third = sha384(self.third + digest).digest()

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        log = firmware()
        body = replace(
            BODY,
            rtmr0=replay(log, 0),
            rtmr1=replay(log, 1),
            rtmr2=replay(log, 2),
            rtmr3=self.third,
            report_data=report_data,
        )
        return TSMReport(Platform(body=body).quote().pack() + bytes(16), b"", "tdx_guest")


@dataclass
class Backend:
    attester: Attester
    firmware: Log = ()


@contextmanager
def backend(name: str, directory: Path) -> Iterator[Backend]:
    """A machine of that kind; "vtpm" is one whose only fresh evidence is its TPM's."""
    if name == "vtpm":
        (directory / "tpm").mkdir(exist_ok=True)
        with vtpm(directory / "tpm") as path:
            device = on_azure(path, ReportType.SNP)
            assert device.paravisor_report is not None
            yield Backend(Attester(Absent(), device, paravisor=Hosted(device.paravisor_report)))
    elif name == "tdx":
        td = FakeTD()
        (directory / "ccel").write_bytes(ccel())
        yield Backend(Attester(td, rtmr=td, ccel=directory / "ccel"), firmware())
    else:
        yield Backend(Attester(FakeTSM()))


@dataclass
class Keysock:
    """The sockets while they serve, and the far side's knobs."""

    directory: Path
    plan: Plan
    attester: Attester
    applications: Applications
    house: House = field(default_factory=House)
    loop: asyncio.AbstractEventLoop | None = None

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.sock"

    @property
    def log(self) -> EventLog:
        return self.attester.log


class UnixHTTP(HTTPConnection):
    """A client of one socket."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(path: Path, target: str, fields: object = None, *, method: str = "POST") -> tuple[int, Any]:
    """Status and JSON of one request on a connection of its own."""
    with closing(UnixHTTP(path)) as client:
        body = None if fields is None else json.dumps(fields)
        client.request(method, target, body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        raw = answer.read()
    assert raw.isascii() and answer.getheader("Content-Length") == str(len(raw))
    assert answer.getheader("Content-Type") == "application/json"
    return answer.status, json.loads(raw)


def plan(
    machine: Backend, *, rights: Rights | None = None, strict: bool = True, origin: Origin | None = ORIGIN
) -> Plan:
    return Plan(
        name="test",
        app_id=b"",
        userdata_sha256=sha256(USERDATA.encode()).digest(),
        userdata=USERDATA,
        origin=origin,
        rights=Rights(uids={os.getuid(): EVERYTHING}) if rights is None else rights,
        strict=strict,
        firmware=machine.firmware,
    )


@contextmanager
def served(
    directory: Path,
    name: str = "snp",
    *,
    rights: Rights | None = None,
    strict: bool = True,
    origin: Origin | None = ORIGIN,
    root: bytes = ROOT,
    house: House | None = None,
) -> Iterator[Keysock]:
    """The four sockets of a machine that has booted."""
    with backend(name, directory) as machine:
        made = plan(machine, rights=rights, strict=strict, origin=origin)
        applications = Applications(machine.attester, who=lambda _: UNIT)  # a test is no unit
        applications.raw, applications.events = made.rights.raw_quote, not strict
        keysock = Keysock(directory, made, machine.attester, applications, house or House())
        with running(lambda ready: _live(keysock, root, ready)):
            yield keysock


@contextmanager
def running(life: Callable[[threading.Event], Coroutine[None, None, None]]) -> Iterator[None]:
    """A coroutine in a loop of another thread, cancelled on leaving; its own failure is raised here."""
    ready, failed = threading.Event(), list[BaseException]()
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[None]] = []

    def main() -> None:
        asyncio.set_event_loop(loop)
        try:
            task.append(loop.create_task(life(ready)))
            loop.run_until_complete(task[0])
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  raised in the test's thread
            failed.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    ready.wait(30)
    try:
        if failed:
            raise failed[0]
        yield
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task[0].cancel)
        thread.join(10)


async def _live(keysock: Keysock, root: bytes, ready: threading.Event) -> None:
    for event in events().events:
        await keysock.attester.extend(event.name, event.payload)
    far = _listener(keysock.directory / "applications.sock")
    answering = asyncio.create_task(keysock.applications.serve(far))
    servers: list[asyncio.Server] = []
    try:
        doors = await Doors.open(keysock.plan, root, Agent(keysock.directory / "applications.sock"))
        for name, door in doors.doors.items():
            servers.append(
                await listen(_listener(keysock.path(name)), keysock.house, door.handle, budget=door.budget)
            )
        ready.set()
        await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        far.close()
        for connections in list(keysock.house.connections.values()):
            for connection in list(connections):
                connection.abort()
        await asyncio.sleep(0)


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(1024)
    return listener


def main() -> None:
    directory, names = Path(sys.argv[1]), sys.argv[2:] or ["snp"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        stack.enter_context(served(directory, names[0]))
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
