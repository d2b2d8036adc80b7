"""The broker as a process, and guests on simulated silicon asking it for a key over TLS."""

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.silicon.mint import DEBUG, POLICY, Silicon
from strongroom.broker.exchange import Collect
from strongroom.errors import PolicyError, VerifyError
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.host.fetch import Fetcher, Pin, Response
from strongroom.host.release import ReleasedKey, release_key
from strongroom.host.run import PIPE, Child, run, spawn
from tests import ROOT
from tests.fakes.broker import URI, VOLUME
from tests.fakes.kbs import Machine
from tests.fakes.silicon import silicon

STRONGROOM = (sys.executable, "-m", "strongroom")
STRICT = "kbs:///default/model/strict"


@dataclass
class Broker:
    url: str
    spki_sha256: bytes
    ca: str
    log: Path
    child: Child

    def audit(self) -> list[dict[str, Any]]:
        """What the journal has once it is quiet: an answer waits for the database, and not for the journal."""
        before, now = "", self.log.read_text()
        while now != before or not now.endswith("\n"):
            time.sleep(0.1)
            before, now = now, self.log.read_text()
        return [json.loads(line) for line in now.splitlines()]


def policy(**change: Any) -> str:
    machine = silicon()
    value = {
        "version": 1,
        "measurements": [{"name": "image-1", "value": machine.measurement.hex()}],
        "host_data": [machine.host_data.hex()],
        "insecure_simulated_roots": [machine.pki.ark_sha256.hex()],
    }
    return json.dumps(value | change)


def put(directory: Path, uri: str, rules: str) -> None:
    (directory / "key").write_bytes(VOLUME.pack())
    (directory / "policy.yaml").write_text(rules)
    files = (str(directory / "key"), "--policy", str(directory / "policy.yaml"))
    run([*STRONGROOM, "broker", "put", str(directory / "b"), uri, *files], cwd=ROOT)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    directory = tmp_path_factory.mktemp("broker")
    silicon()  # its authority is made before any clock runs
    run([*STRONGROOM, "broker", "init", str(directory / "b"), "--name", "127.0.0.1"], cwd=ROOT)
    put(directory, str(URI), policy())
    put(directory, STRICT, policy(insecure_simulated_roots=[]))
    argv = [*STRONGROOM, "broker", "serve", str(directory / "b"), "--listen", "127.0.0.1:0", "--json"]
    log = directory / "audit.log"
    with log.open("wb") as stderr, spawn(argv, cwd=ROOT, stdout=PIPE, stderr=stderr) as child:
        ready = json.loads(child.line(30))
        yield Broker(ready["url"], bytes.fromhex(ready["spki_sha256"]), ready["ca"], log, child)
        child.signal(signal.SIGTERM)
        assert child.wait(10) == 0  # it ends cleanly


def obtain(broker: Broker, machine: Silicon, uri: str = str(URI), **pin: Any) -> ReleasedKey:
    async def collect(asked: Collect) -> CompositeEvidence:
        return Machine(chip=machine)(asked)

    pin = pin or {"spki_sha256": broker.spki_sha256}
    return asyncio.run(
        release_key(url=broker.url, resource=uri, tee="snp", collect=collect, deadline_s=20, **pin)
    )


@pytest.mark.guarantee("G1")
def test_the_right_machine_gets_the_key(broker: Broker) -> None:
    for pin in ({"spki_sha256": broker.spki_sha256}, {"ca_pem": broker.ca}):
        got = obtain(broker, silicon(), **pin)
        assert (got.volume, got.broker_spki_sha256) == (VOLUME, broker.spki_sha256)
    attested, released = broker.audit()[-2:]
    assert (attested["verdict"], released["verdict"]) == ("attested", "released")
    assert (released["peer"], released["resource"]) == ("127.0.0.1", str(URI))
    assert attested["evidence_sha256"] == released["evidence_sha256"]
    assert re.fullmatch(r"policy [0-9a-f]{16} INSECURE-SIMULATED", released["rule"])


OTHERS = {
    "G1": ({"measurement": b"\xff" * 48}, "measurement is ffff.*, want image-1"),
    "G2": ({"host_data": b"\xff" * 32}, "host_data is ffff.*, want 0001"),
    "G6": ({"policy": POLICY | DEBUG}, "debug is on, want off"),
}


@pytest.mark.parametrize(
    ("machine", "why"),
    [pytest.param(*other, marks=pytest.mark.guarantee(guarantee)) for guarantee, other in OTHERS.items()],
    ids=["measurement", "host_data", "debug"],
)
def test_another_machine_hears_why_not(broker: Broker, machine: dict[str, Any], why: str) -> None:
    before = len(broker.audit())
    with pytest.raises(PolicyError, match=f"PolicyDeny: {URI}: {why}"):
        obtain(broker, silicon(**machine))
    lines = broker.audit()[before:]
    assert [line["verdict"] for line in lines] == ["attested", "denied"]  # and one handshake only
    assert re.search(why, lines[-1]["rule"])


@pytest.mark.guarantee("G18")
def test_simulated_silicon_opens_nothing_that_does_not_name_it(broker: Broker) -> None:
    with pytest.raises(PolicyError, match="PolicyDeny"):
        obtain(broker, silicon(), STRICT)


def test_a_resource_that_is_not_there(broker: Broker) -> None:
    with pytest.raises(PolicyError, match="resource kbs:///default/model/gone does not exist"):
        obtain(broker, silicon(), "kbs:///default/model/gone")


@pytest.mark.guarantee("G1")
def test_a_forged_report_is_refused(broker: Broker) -> None:
    class Forger:
        def report(self, report_data: bytes) -> bytes:
            honest = bytearray(silicon().report(report_data))
            honest[0x90] ^= 1  # the measurement, after signing
            return SNPReport.parse(bytes(honest)).pack()

        def certificates(self) -> bytes:
            return silicon().certificates()

    with pytest.raises(VerifyError, match="AttestationError: RCAR handshake Attest failed: "):
        obtain(broker, Forger())  # type: ignore[arg-type]
    assert broker.audit()[-1]["verdict"] == "refused"


@pytest.mark.guarantee("G7")
def test_a_replayed_attestation_is_refused(broker: Broker) -> None:
    """Byte for byte what a genuine guest sent, in a session of the attacker's own."""
    recorded: list[bytes] = []

    class Tap(Fetcher):
        async def request(self, method: str, path: str, **rest: Any) -> Response:
            if path.endswith("/attest"):
                recorded.append(rest["body"])
            return await super().request(method, path, **rest)

    async def replay() -> Response:
        async with Fetcher(broker.url, Pin(spki_sha256=broker.spki_sha256)) as fetcher:
            hello = b'{"version":"0.4.0","tee":"snp","extra-params":""}'
            limits = {"max_bytes": 1 << 16, "timeout_s": 10.0}
            begun = await fetcher.request("POST", "/kbs/v0/auth", body=hello, **limits)  # type: ignore[arg-type]
            return await fetcher.request(
                "POST", "/kbs/v0/attest", body=recorded[0], cookies=begun.cookies, **limits  # type: ignore[arg-type]
            )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strongroom.host.release.Fetcher", Tap)
        obtain(broker, silicon())
    answer = asyncio.run(replay())
    assert answer.status == 401
    assert "nonce is not this session's" in json.loads(answer.body)["detail"]


def test_a_machine_in_the_middle_is_not_the_broker(broker: Broker) -> None:
    with pytest.raises(VerifyError, match="want the pinned one"):
        obtain(broker, silicon(), spki_sha256=bytes(32))


def plain(broker: Broker, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer to these very bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=broker.ca)
    host, port = re.fullmatch(r"https://(.*):(\d+)", broker.url).groups()  # type: ignore[union-attr]
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        tls.sendall(request)
        answer = b""
        while chunk := tls.recv(1 << 16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body


def ask(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_the_cookie_stays_where_it_belongs(broker: Broker) -> None:
    status, headers, body = plain(
        broker, ask("POST", "/kbs/v0/auth", b'{"version":"0.4.0","tee":"snp","extra-params":""}')
    )
    assert status == 200 and headers["content-type"].startswith("application/json")
    assert headers["cache-control"] == "no-store" and "python" not in headers["server"]
    cookie = headers["set-cookie"]
    assert re.match(r"kbs-session-id=[0-9a-f]{32};", cookie)
    for part in ("httponly", "secure", "path=/kbs/v0", "max-age=300"):
        assert part in cookie
    assert len(json.loads(body)["nonce"]) == 44


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/kbs/v0/auth", b"", 401, "AttestationError"),
        ("POST", "/kbs/v0/attest", b"{}", 401, "AttestationError"),
        ("GET", "/kbs/v0/resource/default/model/llama", b"", 401, "TokenNotFound"),
        ("GET", "/kbs/v0/resource/a/../../../etc/passwd", b"", 401, "PluginInternalError"),
        ("GET", "/kbs/v0/resource/a/b/%2e%2e%2fx", b"", 401, "PluginInternalError"),
        ("GET", "/kbs/v0/other/x", b"", 404, "PluginNotFound"),
        ("GET", "/", b"", 404, "InvalidRequestPath"),
        ("POST", "/kbs/v0/resource/default/model/llama", b"x", 401, "AdminAuthAccess"),
        ("DELETE", "/kbs/v0/resource/default/model/llama", b"", 401, "AdminAuthAccess"),
        ("PUT", "/x", b"", 401, "AdminAuthAccess"),
    ],
)
def test_a_stranger_gets_a_reason(
    broker: Broker, method: str, path: str, body: bytes, status: int, kind: str
) -> None:
    got, _, answer = plain(broker, ask(method, path, body))
    assert (got, json.loads(answer)["type"].rpartition("/")[2]) == (status, kind)


def test_a_body_has_its_limit(broker: Broker) -> None:
    status, _, _ = plain(broker, ask("POST", "/kbs/v0/attest", bytes((2 << 20) + 1)))
    assert status == 413


def test_it_says_that_it_lives(broker: Broker) -> None:
    assert plain(broker, ask("GET", "/healthz"))[::2] == (200, b"ok\n")


@pytest.mark.guarantee("G11")
def test_the_log_holds_no_key(broker: Broker) -> None:
    obtain(broker, silicon())
    text = broker.log.read_text()
    packed = json.loads(VOLUME.pack())
    assert packed["key"] not in text and VOLUME.key.hex() not in text
    assert all(line.keys() == broker.audit()[0].keys() for line in broker.audit())


def test_it_says_where_it_cannot_listen(broker: Broker, tmp_path: Path) -> None:
    run([*STRONGROOM, "broker", "init", str(tmp_path), "--name", "a"], cwd=ROOT)
    taken = broker.url.removeprefix("https://")
    done = run([*STRONGROOM, "broker", "serve", str(tmp_path), "--listen", taken], cwd=ROOT, check=False)
    assert (done.status, done.stderr.decode().count("\n")) == (8, 1)
    assert f"{taken}: " in done.stderr.decode()


def test_plain_http_for_this_machine(tmp_path: Path) -> None:
    run([*STRONGROOM, "broker", "init", str(tmp_path), "--name", "a"], cwd=ROOT)
    argv = [*STRONGROOM, "broker", "serve", str(tmp_path), "--listen", "127.0.0.1:0", "--insecure-loopback"]
    with spawn(argv, cwd=ROOT, stdout=PIPE) as child:
        match = re.fullmatch(rb"serving http://127\.0\.0\.1:(\d+) \(INSECURE\)", child.line(30))
        assert match is not None
        with socket.create_connection(("127.0.0.1", int(match[1])), timeout=10) as raw:
            raw.sendall(ask("GET", "/healthz"))
            assert raw.recv(100).startswith(b"HTTP/1.1 200")
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(10) == 0
