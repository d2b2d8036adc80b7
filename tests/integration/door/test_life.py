"""The door's life: closed until the canary sang, renewed while serving, closed with the engine; and its process."""

import json
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import h11
import pytest

from sidecars.proxy.door import GONE
from strongroom.errors import (
    ConfigError,
    ProtocolError,
    StrongroomError,
    TransportError,
)
from strongroom.evidence.binding import EXPORTER_LABEL, Purpose, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.host.tls import connect
from strongroom.ratls.acceptance import spki
from strongroom.verify.bundle import verify_bundle
from tests import ROOT
from tests.fakes.exchange import MODEL, events
from tests.fakes.opened import ROOTS, Client, House, chat, house_in, wait_for
from tests.fakes.served import SECRET


@pytest.mark.guarantee("G9")
def test_nothing_listens_before_the_canary_sang(socket_dir: Path) -> None:
    house = House(socket_dir)
    try:
        house.start_door(until="certified")
        assert house.door.port is None
        assert admin_state(socket_dir)["state"] == "certified"
        house.engine.healthy = False
        house.start_engine()
        time.sleep(0.7)
        assert house.engine.sung == 0
        assert admin_state(socket_dir)["state"] == "certified"
        house.engine.healthy = True
        wait_for(lambda: house.door.state == "open")
        assert house.engine.sung == 2
        assert admin_state(socket_dir)["state"] == "open"
    finally:
        house.close()


def admin_state(directory: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(directory / "admin.sock"))
        sock.sendall(b"GET /state HTTP/1.1\r\nHost: door\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
    state: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return state


def test_the_agent_learns_which_certificate_is_shown(client: Client, house: House) -> None:
    client.ask("GET", "/v1/models")
    state = admin_state(house.directory)
    der = client.stream.peer_certificate_der
    assert state == {
        "state": "open",
        "spki_sha256": sha256(spki(der)).hexdigest(),
        "certificate_sha256": sha256(der).hexdigest(),
        "requests": 1,
    }


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    ("knob", "value", "why"), [("canary", "", "empty answer"), ("name", "other", "exactly 'tiny'")]
)
def test_a_wrong_engine_never_opens_the_door(socket_dir: Path, knob: str, value: str, why: str) -> None:
    house = House(socket_dir)
    try:
        setattr(house.engine, knob, value)
        house.start_engine()
        house.start_door()
        with pytest.raises(ProtocolError, match=why):
            house.exit_code()
        assert house.door.port is None
    finally:
        house.close()


@pytest.mark.parametrize("log", [EventLog(), events(model=type(MODEL)(name="tiny", root=bytes(32), epoch=3))])
def test_a_plan_the_evidence_contradicts_is_refused(socket_dir: Path, log: EventLog) -> None:
    house = House(socket_dir, log=log)
    try:
        house.start_engine()
        house.start_door()
        with pytest.raises(StrongroomError) as caught:
            house.exit_code()
        assert isinstance(caught.value, ConfigError) or "no event" in str(caught.value)
        assert house.door.port is None
    finally:
        house.close()


@pytest.mark.guarantee("G10")
def test_the_engines_death_closes_the_door_and_every_connection(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.engine.stall_after = 1
    port = house.door.port
    assert port is not None
    with house.dial() as idle, house.dial() as busy:
        client = Client(busy)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        client.head()
        pieces = client.body()
        next(pieces)
        house.do(house.engine.die())
        assert house.exit_code() == GONE == 75
        with pytest.raises((h11.RemoteProtocolError, TransportError)):
            list(pieces)
        assert idle.recv() == b""
    with pytest.raises(TransportError):
        connect("127.0.0.1", port, timeout=2)
    assert house.door.state == "closed"
    assert "the door is closed: engine: " in caplog.text


STRANGER: Final = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    if heard := connection.recv(65536):
        print(heard, flush=True)
"""


@pytest.mark.guarantee("G9")
@pytest.mark.guarantee("G10")
def test_an_engine_that_sang_no_canary_hears_nothing(house: House) -> None:
    path = house.directory / "engine.sock"
    path.unlink()  # the one that sang lives on, and with it the sentinel
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with stranger:
        assert stranger.stdout is not None and stranger.stdout.readline() == b"ready\n"
        with house.dial() as stream:
            assert Client(stream).ask("POST", "/v1/chat/completions", chat())[0] == 503
        assert house.exit_code() == GONE
        stranger.kill()
        assert stranger.stdout.read() == b""


@pytest.mark.guarantee("G10")
def test_an_unwell_engine_closes_the_door(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.engine.canary.HEALTH_EVERY", 0.05)
    house.engine.healthy = False
    assert house.exit_code() == GONE


def test_the_standard_library_can_talk_to_the_door(house: House) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", house.door.port or 0), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname="door.example") as stream,
    ):
        assert stream.version() == "TLSv1.3"
        stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := stream.recv(65536):
            answer += data
    assert answer.endswith(b'{"status":"open"}')


def test_the_certificate_is_renewed_while_serving(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.identity.RENEW_LOOK", 0.05)
    with house_in(socket_dir) as house, house.dial() as old:
        house.agent.refusal = "busy"
        monkeypatch.setattr("strongroom.host.door.identity.RENEW_AFTER", timedelta(0))
        time.sleep(0.2)
        house.agent.refusal = None
        first = sha256(old.peer_certificate_der).hexdigest()
        wait_for(lambda: admin_state(house.directory)["certificate_sha256"] != first)
        with house.dial() as new:
            assert new.peer_certificate_der != old.peer_certificate_der
        nonce = bytes(32)
        status, _, body = Client(old).ask("GET", f"/.well-known/strongroom/evidence?nonce={nonce.hex()}")
        assert status == 200
        verify_bundle(
            Bundle.from_json(json.loads(body)["channel"]),
            purpose=Purpose.CHANNEL,
            challenge=channel_challenge(nonce, old.exporter(EXPORTER_LABEL, 32, nonce)),
            key=spki(old.peer_certificate_der),
            roots=ROOTS,
            now=datetime.now(UTC),
        )


class Process:
    """The door as the service manager starts it: a credential, a runtime directory, a notify socket."""

    def __init__(self, house: House) -> None:
        directory = house.directory
        (directory / "door").write_bytes(house.credential)
        (directory / "door-secret").write_bytes(SECRET)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(20)
        self._notify.bind(str(directory / "notify"))
        environment = {
            "PATH": "/usr/bin:/bin",
            "CREDENTIALS_DIRECTORY": str(directory),
            "RUNTIME_DIRECTORY": str(directory),
            "NOTIFY_SOCKET": str(directory / "notify"),
            "WATCHDOG_USEC": "200000",
        }
        self.child = subprocess.Popen(
            [sys.executable, "-B", "-m", "sidecars.proxy"],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.told: list[str] = []

    def told_until(self, line: str) -> None:
        while line not in self.told:
            self.told += self._notify.recv(4096).decode().splitlines()

    def end(self) -> tuple[int, list[str]]:
        try:
            _, errors = self.child.communicate(timeout=20)
        finally:
            self.child.kill()
            self._notify.close()
        return self.child.returncode, errors.splitlines()


@pytest.mark.guarantee("G10")
def test_the_process_says_ready_then_open_and_ends_with_75(socket_dir: Path) -> None:
    house = House(socket_dir)
    try:
        process = Process(house)
        process.told_until("STATUS=certified: the door stays closed until the engine answers")
        assert "READY=1" in process.told and "STATUS=open" not in process.told
        house.start_engine()
        process.told_until("STATUS=open")
        process.told_until("WATCHDOG=1")
        house.do(house.engine.die())
        code, lines = process.end()
        assert code == GONE
        assert lines[-1] == "ERROR the door is closed: engine: it closed the connection"
        assert lines[0].startswith("INFO the door is open on 127.0.0.1 port ")
        assert len(lines) == 2
    finally:
        house.close()


def test_the_process_ends_with_0_when_it_is_told_to(socket_dir: Path) -> None:
    house = House(socket_dir)
    try:
        process = Process(house)
        house.start_engine()
        process.told_until("STATUS=open")
        process.child.terminate()
        assert process.end()[0] == 0
    finally:
        house.close()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("credential", "code", "why"),
    [
        (b"{}", 3, "strongroom-proxy: door.cache: missing key"),
        (None, 9, "strongroom-proxy: evidence socket"),
    ],
)
def test_the_process_ends_with_one_sentence(
    socket_dir: Path, credential: bytes | None, code: int, why: str
) -> None:
    house = House(socket_dir)
    try:
        house.credential = credential or house.credential
        house.do(house.agent.stop())
        found, lines = Process(house).end()
        assert (found, len(lines)) == (code, 1)
        assert lines[0].startswith(why)
    finally:
        house.close()
