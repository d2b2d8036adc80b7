"""The key socket among hostile programs: each attack by another user, at scale, and an honest client beside it.

The server is a process of its own with the limits that its unit has. The honest client asks all the while, on a
connection that it keeps and on new ones; every one of its answers is compared.
"""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from guest.keysock.server import MAX_CONNECTIONS, MAX_HELD, MAX_OF_ONE
from strongroom.host.run import PIPE, spawn
from strongroom.keys.dstack import AppKeys
from tests import ROOT, need
from tests.fakes.attackers import HEAD, connected, everything, status_of
from tests.fakes.keysock import ROOT as SECRET
from tests.fakes.keysock import UnixHTTP

pytestmark = pytest.mark.slow

NOBODY: Final = 65534
DOORS: Final = ("dstack", "tappd", "quote", "agent")
DESCRIPTORS: Final = 4096  # the unit's LimitNOFILE
PATIENCE: Final = 10.0  # seconds the honest client waits for an answer
SPARE: Final = 64 << 20  # bytes a server may grow by beside the bodies it holds
KEYS: Final = AppKeys.from_seed(SECRET)


@dataclass
class Server:
    directory: Path
    pid: int

    def path(self, name: str = "dstack") -> Path:
        return self.directory / f"{name}.sock"

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def settled(self) -> int:
        """Its descriptors once it has seen to everything that waits for it."""
        counts = [self.descriptors]
        while len(counts) < 4 or len(set(counts[-4:])) > 1:
            time.sleep(0.1)
            counts.append(self.descriptors)
        return counts[-1]

    @property
    def peak(self) -> int:
        """Bytes of memory that it had at most."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


@dataclass
class Honest:
    """A client that asks until it is told to stop."""

    server: Server
    answers: int = 0
    slowest: float = 0.0
    most: int = 0  # descriptors that the server had
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def live(self) -> None:
        with closing(UnixHTTP(self.server.path(), timeout=PATIENCE)) as kept:
            while not self.stop.wait(0.01):
                try:
                    self._ask(kept)
                    with closing(UnixHTTP(self.server.path(), timeout=PATIENCE)) as new:
                        self._ask(new)
                except Exception as error:  # noqa: BLE001  the test fails with it
                    self.failures.append(repr(error))
                    return

    def _ask(self, client: UnixHTTP) -> None:
        path, begun = f"honest/{self.answers % 8}", time.monotonic()
        client.request("POST", "/GetKey", json.dumps({"path": path}), {"Content-Type": "application/json"})
        answer = json.loads(client.getresponse().read())
        self.slowest = max(self.slowest, time.monotonic() - begun)
        assert answer["key"] == KEYS.key(path).hex()
        self.answers += 1
        self.most = max(self.most, self.server.descriptors)


@pytest.fixture
def server() -> Iterator[Server]:
    need(os.geteuid() == 0, "two users take root")
    directory = Path(tempfile.mkdtemp(prefix="hostile-"))
    directory.chmod(0o755)
    argv = [sys.executable, "-m", "tests.fakes.keysock", str(directory)]
    try:
        with spawn(argv, cwd=ROOT, stdout=PIPE) as child:
            assert child.line(60) == b"ready"
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
            yield Server(directory, child.pid)
            child.check()
    finally:
        shutil.rmtree(directory)


@contextmanager
def honest(server: Server) -> Iterator[Honest]:
    """Served from beginning to end."""
    client = Honest(server)
    thread = threading.Thread(target=client.live)
    thread.start()
    try:
        yield client
    finally:
        client.stop.set()
        thread.join(2 * PATIENCE)
    assert client.failures == []
    assert client.answers >= 2
    assert client.most < DESCRIPTORS // 2
    slowest = f"{client.answers} answers, the slowest after {1e3 * client.slowest:.0f} ms"
    print(f"honest client: {slowest}; the server had {client.most} descriptors at most")


@dataclass
class Attack:
    process: "subprocess.Popen[bytes]"

    def height(self) -> dict[str, Any]:
        """What it says when it has done its worst."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        said: dict[str, Any] = json.loads(line)
        return said

    def result(self, timeout: float = 120.0) -> dict[str, Any]:
        """What it saw in the end."""
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def another(program: str, *words: str | Path, uid: int = NOBODY) -> "subprocess.Popen[bytes]":
    """A program of another user's, who can read nothing of this checkout."""
    python: str = sys._base_executable  # type: ignore[attr-defined]
    return subprocess.Popen(
        [python, "-I", "-c", program, *map(str, words)],
        user=uid,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@contextmanager
def attack(
    server: Server, name: str, count: int, door: str = "dstack", *, uid: int = NOBODY
) -> Iterator[Attack]:
    program = (ROOT / "tests/fakes/attackers.py").read_text()
    process = another(program, name, server.path(door), str(count), uid=uid)
    try:
        yield Attack(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.guarantee("G16")
def test_ten_thousand_connections(server: Server) -> None:
    """One user's, at once, to every door. All but a few are closed, and the honest client does not wait for that."""
    before = server.peak
    with honest(server), ExitStack() as stack:
        crowds = [stack.enter_context(attack(server, "crowd", 2500, door)) for door in DOORS]
        assert sum(crowd.height()["connections"] for crowd in crowds) == 10_000
        assert server.settled() < MAX_OF_ONE + 64
        states = sum((Counter(crowd.result()["turned away"]) for crowd in crowds), Counter[str]())
    assert states["open"] <= MAX_OF_ONE
    assert states.total() == 10_000
    assert states.keys() <= {"open", "none", "503"}
    assert server.peak - before < SPARE


def test_many_users_cannot_take_all_descriptors(server: Server) -> None:
    """As many as may be there at all, of uids that each keep to their share."""
    users = MAX_CONNECTIONS // MAX_OF_ONE + 2
    with ExitStack() as stack:
        uids = range(NOBODY + 10, NOBODY + 10 + users)
        crowds = [stack.enter_context(attack(server, "crowd", MAX_OF_ONE, uid=uid)) for uid in uids]
        assert [crowd.height() for crowd in crowds] == [{"connections": MAX_OF_ONE}] * users
        assert server.settled() <= MAX_CONNECTIONS + 64
    with honest(server) as client:
        while client.answers < 10 and not client.failures:
            time.sleep(0.01)


def test_slow_heads_and_bodies_are_cut(server: Server) -> None:
    with honest(server), attack(server, "drip", MAX_OF_ONE) as drip:
        assert drip.result()["cut"] == {"408": MAX_OF_ONE}


def test_bodies_of_100_megabytes(server: Server) -> None:
    before = server.peak
    with honest(server), attack(server, "pour", 8) as pour:
        assert pour.result()["answers"] == {"413": 8}
    assert server.peak - before < SPARE


def test_bodies_that_are_never_whole(server: Server) -> None:
    """One user holds at most what one may; the next is told so, and who asks for little is served."""
    before = server.peak
    with honest(server), attack(server, "swell", 16) as swell:
        answers = swell.result()["answers"]
        assert answers.keys() <= {"408", "503"}
        assert answers["503"] >= 14
    assert server.peak - before < MAX_HELD + SPARE


def test_large_bodies_one_after_the_other(server: Server) -> None:
    before = server.peak
    with honest(server), attack(server, "chew", 4) as chew:
        assert chew.result()["answers"] == 16
    assert server.peak - before < MAX_HELD + SPARE


def test_who_asks_and_never_listens(server: Server) -> None:
    before = server.peak
    with honest(server), attack(server, "deaf", 32) as deaf:
        assert deaf.height()["sent"] > 0
        assert deaf.result() == {"still there": 0}
    assert server.peak - before < SPARE
    assert server.settled() < 64


def test_keys_that_nobody_asked_for_before(server: Server) -> None:
    """Each is work that no memory saves. One caller's share of it does not keep others waiting."""
    with honest(server), attack(server, "grind", 8) as grind:
        assert grind.result()["answers"] > 0


@pytest.mark.guarantee("G16")
def test_garbage(server: Server) -> None:
    """Whatever it is answered with is what every client is promised, or nothing at all."""
    with honest(server), attack(server, "nonsense", 3000) as nonsense:
        answers = nonsense.result()["answers"]
    assert answers.keys() <= {
        "200",
        "400",
        "403",
        "404",
        "405",
        "408",
        "411",
        "413",
        "415",
        "417",
        "431",
        "none",
    }
    assert answers["400"] > 1000
    assert sum(answers.values()) == 3000
    print(answers)


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Ten thousand in one go, by a client that then only listens."""
    count = 10_000
    with honest(server), closing(connected(str(server.path()))) as client:
        bodies = [json.dumps({"path": f"honest/{n % 50}"}).encode() for n in range(count)]
        asked = b"".join(HEAD % len(body) + body for body in bodies)
        threading.Thread(target=_say, args=(client, asked)).start()
        answers = everything(client).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(answers) == count
    want = [KEYS.key(f"honest/{n}").hex() for n in range(50)]
    found = [json.loads(answer.partition(b"\r\n\r\n")[2])["key"] for answer in answers]
    assert found == [want[n % 50] for n in range(count)]


def _say(client: socket.socket, words: bytes) -> None:
    client.sendall(words)
    client.shutdown(socket.SHUT_WR)


def test_callers_that_are_gone_at_once(server: Server) -> None:
    with honest(server), attack(server, "vanish", 1000) as vanish:
        assert vanish.result() == {"gone": 1000}
    assert server.settled() < 64


# Connects as nobody, leaves the connection to a child and ends. The child asks when it is told to.
HEIR: Final = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
if os.fork():
    os._exit(0)
sys.stdin.readline()
body = b'{"path":"uid-0/x"}'
head = b"POST /GetKey HTTP/1.1\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
try:
    client.sendall(head % len(body) + body)
    client.shutdown(socket.SHUT_WR)
except OSError:
    pass
while piece := client.recv(65536):
    os.write(1, piece)
"""


@pytest.mark.guarantee("G20")
def test_a_pid_that_another_process_has_by_now(server: Server) -> None:
    """A connection left to others by a process that ended before it was accepted, whose pid is root's by then."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    need(os.access(last, os.W_OK), "the kernel lets nobody choose a pid here")
    taken, rounds = 0, 50
    with honest(server):
        for _ in range(rounds):
            os.kill(server.pid, signal.SIGSTOP)
            heir = another(HEIR, server.path())
            os.waitpid(heir.pid, 0)
            heir.returncode = 0  # reaped, so that its pid is free
            last.write_text(str(heir.pid - 1))
            with subprocess.Popen(["sleep", "60"]) as successor:
                taken += successor.pid == heir.pid
                os.kill(server.pid, signal.SIGCONT)
                answer, _ = heir.communicate(b"\n", timeout=30)
                successor.kill()
            assert status_of(answer) == "403"
            assert b"it has ended, want it alive" in answer
    assert taken > rounds // 4
    print(f"{taken} of {rounds} pids were another process's when the connection was accepted")
