"""The broker's house as processes: administered over the network, restarted, killed under load, and watched."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.exchange import Collect
from strongroom.broker.resource import ResourceURI
from strongroom.cli.broker_target import Remote, read_key
from strongroom.errors import PolicyError, TransportError, VerifyError
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.host.brokerage.house import House
from strongroom.host.fetch import Fetcher, Pin, Response
from strongroom.host.release import BrokerSession, release_key
from strongroom.host.run import PIPE, Child, run, spawn
from strongroom.wire.canonical import b64
from tests import ROOT
from tests.fakes.broker import URI, VOLUME
from tests.fakes.kbs import Machine
from tests.fakes.silicon import silicon

STRONGROOM = (sys.executable, "-m", "strongroom")


def strongroom(*words: object, check: bool = True) -> str:
    done = run([*STRONGROOM, *map(str, words)], cwd=ROOT, check=check)
    return done.stdout.decode() + ("" if check else done.stderr.decode())


def policy(**change: Any) -> str:
    machine = silicon()
    value = {
        "version": 1,
        "measurements": [{"name": "image-1", "value": machine.measurement.hex()}],
        "host_data": [machine.host_data.hex()],
        "insecure_simulated_roots": [machine.pki.ark_sha256.hex()],
    }
    return json.dumps(value | change)


@dataclass
class Made:
    """A broker directory, an administrator's key, and one resource."""

    folder: Path
    spki: str = ""
    logs: list[Path] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.folder / "b"

    @property
    def key(self) -> Path:
        return self.folder / "ann.key"

    @contextmanager
    def serving(self, *options: str, listen: str = "127.0.0.1:0") -> Iterator["Running"]:
        log = self.folder / f"{len(self.logs)}.log"
        self.logs.append(log)
        argv = [*STRONGROOM, "broker", "serve", str(self.directory), "--listen", listen, "--json", *options]
        with log.open("wb") as stderr, spawn(argv, cwd=ROOT, stdout=PIPE, stderr=stderr) as child:
            ready = json.loads(child.line(30))
            yield Running(ready["url"], bytes.fromhex(ready["spki_sha256"]), ready["metrics"], child, self)

    def told(self) -> list[dict[str, Any]]:
        """What every server so far told the journal."""
        return [json.loads(line) for log in self.logs for line in log.read_bytes().split(b"\n")[:-1]]


@dataclass
class Running:
    url: str
    spki: bytes
    metrics: str | None
    child: Child
    made: Made

    @property
    def pin(self) -> Pin:
        return Pin(spki_sha256=self.spki)

    def administer(self, *words: object, check: bool = True) -> str:
        """A verb over the network."""
        return strongroom(
            "broker",
            words[0],
            self.url,
            *words[1:],
            "--key",
            self.made.key,
            "--spki",
            self.spki.hex(),
            check=check,
        )

    def remote(self) -> Remote:
        return Remote(self.url, self.pin, read_key(self.made.key))

    def stop(self) -> None:
        self.child.signal(signal.SIGTERM)
        assert self.child.wait(20) == 0


@pytest.fixture
def made(tmp_path: Path) -> Made:
    silicon()  # its authority is made before any clock runs
    public = strongroom("broker", "key", tmp_path / "ann.key").split()[-1]
    strongroom("broker", "init", tmp_path / "b", "--name", "127.0.0.1", "--admin", f"ann={public}")
    (tmp_path / "key").write_bytes(VOLUME.pack())
    (tmp_path / "policy.yaml").write_text(policy())
    strongroom("broker", "put", tmp_path / "b", URI, tmp_path / "key", "--policy", tmp_path / "policy.yaml")
    return Made(tmp_path)


async def collect(asked: Collect) -> CompositeEvidence:
    return Machine(chip=silicon())(asked)


def obtain(broker: Running, uri: str = str(URI)) -> bytes:
    got = asyncio.run(
        release_key(
            url=broker.url, resource=uri, tee="snp", collect=collect, deadline_s=20, spki_sha256=broker.spki
        )
    )
    return got.volume.pack()


def test_administered_over_the_network(made: Made, tmp_path: Path) -> None:
    with made.serving() as broker:
        assert obtain(broker) == VOLUME.pack()
        assert str(URI) in broker.administer("list")
        (tmp_path / "plain").write_bytes(b"a password")
        said = broker.administer(
            "put", "kbs:///a/b/c", tmp_path / "plain", "--policy", tmp_path / "policy.yaml"
        )
        assert "kbs:///a/b/c: version 1, 10 bytes kept" in said
        head = said.splitlines()[-1].split()[-1]
        assert "version 2, epoch 2" in broker.administer("rotate", "kbs:///a/b/c", "--random", "32")
        measurement = silicon().measurement.hex()
        broker.administer("revoke", "--measurement", measurement, "--reason", "advisory 7")
        with pytest.raises(PolicyError, match=f"measurement {measurement} is revoked: advisory 7"):
            obtain(broker)
        broker.administer("revoke", "--measurement", measurement, "--reason", "a mistake", "--undo")
        assert obtain(broker) == VOLUME.pack()
        assert "kbs:///a/b/c: deleted, versions 1, 2" in broker.administer("delete", "kbs:///a/b/c")
        assert "audit verified, " in broker.administer("audit", "--verify", "--head", head)
        assert "does not exist" in broker.administer("delete", "kbs:///a/b/c", check=False)
        # A command on the directory, while it is served.
        strongroom("broker", "revoke", made.directory, URI, "--epoch", 3, "--reason", "leaked")
        with pytest.raises(PolicyError, match="want an epoch after 3, which is revoked"):
            obtain(broker)
        broker.stop()
    assert "audit verified" in strongroom("broker", "audit", made.directory, "--verify")
    who = {line["peer"] for line in made.told()}
    assert "administrator ann" in who and b64(b"a password") not in json.dumps(made.told())


def test_who_is_no_administrator_is_told_and_recorded(made: Made, tmp_path: Path) -> None:
    strongroom("broker", "key", tmp_path / "eve.key")
    with made.serving() as broker:
        eve = Remote(broker.url, broker.pin, read_key(tmp_path / "eve.key"))
        with pytest.raises(
            PolicyError, match=r"broker: admin request: key .* is not an administrator's here"
        ):
            asyncio.run(eve.act("list", {}))
        with pytest.raises(VerifyError, match="want the pinned one"):
            asyncio.run(Remote(broker.url, Pin(spki_sha256=bytes(32)), eve.key).act("list", {}))

        async def bare() -> Response:
            async with Fetcher(broker.url, broker.pin) as fetcher:
                return await fetcher.request(
                    "POST", "/strongroom/v1/admin/list", body=b"{}", max_bytes=1 << 16, timeout_s=10.0
                )

        answer = asyncio.run(bare())
        assert (answer.status, json.loads(answer.body)["code"]) == (400, 4)
        broker.stop()
    assert [line["verdict"] for line in made.told()].count("forbidden") == 1


def test_a_replayed_request_of_an_administrator_is_refused(made: Made) -> None:
    sent: list[dict[str, Any]] = []

    class Tap(Fetcher):
        async def request(self, method: str, path: str, **rest: Any) -> Response:
            sent.append({"method": method, "path": path, **rest})
            return await super().request(method, path, **rest)

    with made.serving() as broker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("strongroom.cli.broker_target.Fetcher", Tap)
            asyncio.run(broker.remote().act("list", {}))

        async def again(**change: Any) -> Response:
            async with Fetcher(broker.url, broker.pin) as fetcher:
                return await fetcher.request(**{**sent[-1], **change})

        replayed = asyncio.run(again())
        assert replayed.status == 403 and "replayed" in json.loads(replayed.body)["error"]
        for change in ({"body": b'{"a":1}'}, {"path": "/strongroom/v1/admin/audit"}):
            other = asyncio.run(again(**change))
            assert (
                other.status == 403 and "the signature is not of this key" in json.loads(other.body)["error"]
            )
        broker.stop()


def test_sessions_go_on_after_a_restart(made: Made) -> None:
    """A guest that attested to one process gets its key from the next, without another handshake."""
    port = 0

    async def guest(first: Running) -> tuple[int, int]:
        nonlocal port
        async with BrokerSession(
            url=first.url, pin=first.pin, tee="snp", collect=collect, deadline_s=30
        ) as session:
            with await session.get(URI) as secret:
                assert secret.reveal() == VOLUME.pack()
            before = session.handshakes
            await asyncio.to_thread(first.stop)
            with made.serving(listen=first.url.removeprefix("https://")) as second:
                with await session.get(URI) as secret:
                    assert secret.reveal() == VOLUME.pack()
                after = session.handshakes
                await asyncio.to_thread(second.stop)
            return before, after

    with made.serving() as first:
        assert asyncio.run(guest(first)) == (1, 1)
    assert re.search("stopped, 1 sessions kept", json.dumps(made.told()))
    assert re.search("1 sessions resumed", json.dumps(made.told()))


def test_what_was_begun_is_finished(made: Made) -> None:
    """Told to stop in the middle of a request's body, it waits for the rest and answers."""
    with made.serving() as broker:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, port = broker.url.removeprefix("https://").split(":")
        body = b'{"version":"0.4.0","tee":"snp","extra-params":""}'
        with (
            socket.create_connection((host, int(port)), timeout=10) as raw,
            context.wrap_socket(raw) as tls,
        ):
            tls.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n" % len(body))
            tls.sendall(body[:10])
            time.sleep(0.3)  # until it has begun to read
            broker.child.signal(signal.SIGTERM)
            time.sleep(0.3)
            with (
                pytest.raises(ConnectionRefusedError),
                socket.create_connection((host, int(port)), timeout=1),
            ):
                pass  # nobody new
            tls.sendall(body[10:])
            assert tls.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert broker.child.wait(20) == 0


@pytest.mark.guarantee("G21")
@pytest.mark.slow
def test_killed_under_load_it_loses_nothing_it_acknowledged(made: Made) -> None:
    """SIGKILL, five times, between administrators who write and guests who ask: every answer that left is on record."""
    acknowledged: dict[str, bytes] = {}
    released = 0

    async def writes(broker: Running, worker: int, turn: int) -> None:
        remote = broker.remote()
        for n in range(10_000):
            uri, payload = f"kbs:///load/{turn}/{worker}-{n}", os.urandom(24)
            await remote.act("put", {"uri": uri, "payload": b64(payload), "policy": policy()})
            acknowledged[uri] = payload

    async def asks(broker: Running) -> None:
        nonlocal released
        async with BrokerSession(
            url=broker.url, pin=broker.pin, tee="snp", collect=collect, deadline_s=0.5
        ) as session:
            while True:
                with await session.get(URI) as secret:
                    assert secret.reveal() == VOLUME.pack()
                released += 1

    async def load(broker: Running, turn: int) -> None:
        work = [asks(broker), asks(broker), *(writes(broker, n, turn) for n in range(2))]
        tasks = [asyncio.create_task(one) for one in work]
        await asyncio.sleep(0.8 + 0.13 * turn)
        broker.child.signal(signal.SIGKILL)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, TransportError), outcome

    kept: list[bytes] = []
    for turn in range(5):
        with made.serving("--rate", "100000", "--handshakes", "1000") as broker:
            asyncio.run(load(broker, turn))
            broker.child.wait(10)
        with House(made.directory) as house:
            house.verify_audit()
            kept = [line for (line,) in house.database.rows("SELECT line FROM audit ORDER BY number")]
            rules = house.rules()
            for uri, payload in acknowledged.items():
                resource = rules.resources[ResourceURI.parse(uri)]
                assert house.secret(resource.uri, resource.versions[0]) == payload
    audit = [json.loads(line) for line in kept]
    assert len(acknowledged) > 20 and released > 20
    assert sum(line["verdict"] == "released" for line in audit) >= released
    put = {line["rule"].split()[1] for line in audit if line["rule"].startswith("put ")}
    assert acknowledged.keys() <= put
    # Whatever the journal was told is in the log, as it was told.
    assert {json.dumps(line, sort_keys=True) for line in made.told()} <= {
        json.dumps(line, sort_keys=True) for line in audit
    }
    with sqlite3.connect(made.directory / "broker.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_it_counts(made: Made) -> None:
    with made.serving("--metrics", "127.0.0.1:0") as broker:
        obtain(broker)
        assert broker.metrics is not None
        host, port = broker.metrics.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := raw.recv(1 << 16):
                answer += chunk
        head, _, text = answer.decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200") and "text/plain; version=0.0.4" in head
        lines = text.splitlines()
        assert 'strongroom_broker_decisions_total{verdict="released"} 1' in lines
        assert 'strongroom_broker_decisions_total{verdict="denied"} 0' in lines
        assert 'strongroom_broker_requests_total{path="auth",status="200"} 1' in lines
        assert 'strongroom_broker_request_seconds_count{path="attest"} 1' in lines
        assert "strongroom_broker_sessions 1" in lines and "strongroom_broker_resources 1" in lines
        assert "llama" not in text and "127.0.0.1" not in text
        with socket.create_connection((host, int(port)), timeout=10) as raw:  # and nothing else
            raw.sendall(b"GET /kbs/v0/resource/default/model/llama HTTP/1.1\r\nHost: m\r\n\r\n")
            assert raw.recv(1 << 16).startswith(b"HTTP/1.1 404")
        broker.stop()


def test_one_address_is_held_back(made: Made) -> None:
    async def many(broker: Running) -> list[Response]:
        async with Fetcher(broker.url, broker.pin) as fetcher:
            return [
                await fetcher.request("GET", "/healthz", max_bytes=1 << 16, timeout_s=10.0) for _ in range(40)
            ]

    with made.serving("--rate", "1") as broker:
        answers = asyncio.run(many(broker))
        assert [answer.status for answer in answers[:20]] == [200] * 20
        assert answers[-1].status == 429 and answers[-1].headers["retry-after"] == "1"
        broker.stop()


def test_one_server_for_one_directory(made: Made) -> None:
    with made.serving() as broker:
        argv = [*STRONGROOM, "broker", "serve", str(made.directory), "--listen", "127.0.0.1:0"]
        done = run(argv, cwd=ROOT, check=False)
        assert (done.status, done.stderr.decode().count("\n")) == (8, 1)
        assert "another broker serves it already" in done.stderr.decode()
        broker.stop()


def test_a_socket_of_the_service_manager(made: Made) -> None:
    """As a .socket unit does it: the socket outlives the process, and nobody is turned away between two."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    starter = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'strongroom', *sys.argv[2:]])\n"
    )
    words = ["broker", "serve", str(made.directory), "--listen", "systemd", "--json"]
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            pid = _started(starter, listener, words, made.folder / "activated.out", stack)
            ready = json.loads(_line(made.folder / "activated.out"))
            assert ready["url"] == f"https://127.0.0.1:{port}"
            got = asyncio.run(
                release_key(
                    url=ready["url"],
                    resource=str(URI),
                    tee="snp",
                    collect=collect,
                    deadline_s=20,
                    spki_sha256=bytes.fromhex(ready["spki_sha256"]),
                )
            )
            assert got.volume == VOLUME
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    listener.close()


def _started(
    starter: str, listener: socket.socket, words: list[str], out: Path, stack: contextlib.ExitStack
) -> int:
    file = stack.enter_context(out.open("wb"))
    listener.set_inheritable(True)
    argv = [sys.executable, "-c", starter, str(listener.fileno()), *words]
    actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), 1), (os.POSIX_SPAWN_DUP2, file.fileno(), 2)]
    return os.posix_spawn(sys.executable, argv, {**os.environ, "PYTHONPATH": str(ROOT)}, file_actions=actions)


def _line(path: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in path.read_text().splitlines():
            if '"url"' in line:
                return line
        time.sleep(0.05)
    raise AssertionError(path.read_text())
