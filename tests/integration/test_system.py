"""The whole chain under a real systemd with a real engine: one guest that serves, looked at from every side.

The tests of this module share one booted guest and run in order; those that kill something come last.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.asking import ask_openai
from demo.attacks import relayed_certificate
from demo.relaying import replay_to_broker
from demo.site import MODEL, TOKEN, Site, Workshop, make_workshop, site
from guest.machine import tpm
from strongroom.broker.resource import VolumeKey
from strongroom.evidence.eventlog import PCR, EventLog
from strongroom.host.tls import connect
from tests import ROOT, need

pytestmark = [pytest.mark.systemd, pytest.mark.engine, pytest.mark.slow]

FOLDER = ROOT / "build" / "test-system"
FS, ENGINE, DOOR, AGENT = (f"strongroom-{name}.service" for name in ("fs", "engine", "proxy", "agent"))
BACK = 180.0  # seconds within which a killed part must serve again, engine start included
AT_ONCE = 3.0  # seconds within which a door must be shut; far above what it takes


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    for name in ("guest", "engine"):
        need((ROOT / "build" / name / ".recipe").exists(), f"no build/{name}: run ./setup.sh all")
    return make_workshop(FOLDER)


@pytest.fixture(scope="module")
def serving(workshop: Workshop) -> Iterator[Site]:
    with site(workshop, FOLDER / "site") as made:
        record = made.wait("serving", "failed")
        assert record["state"] == "serving", record.get("error")
        yield made


def test_the_record_tells_the_boot(serving: Site, workshop: Workshop) -> None:
    record = serving.record()
    names = [stage["name"] for stage in record["stages"]]
    assert names == [
        "configure", "measure", "keys", "sockets", "volumes", "receive", "mount", "certify", "tunnel", "gpu",
        "serve",
    ]  # fmt: skip
    assert record["measurement"] == serving.measurement == workshop.payload.measure().hex()
    assert record["model"] == {"name": MODEL, "root": workshop.new.root, "epoch": 2}
    shown = serving.running.run("systemctl", "show", "-p", "StatusText,ActiveState", AGENT).stdout.decode()
    assert "StatusText=serving" in shown
    assert "ActiveState=active" in shown
    assert "Strongroom: serving" in serving.running.journal("-u", AGENT)


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G12")
def test_verify_chat_and_receipt(serving: Site, tmp_path: Path) -> None:
    status, table, _ = serving.strongroom("verify", serving.url, "--policy", serving.policy)
    assert status == 0
    assert "INSECURE-SIMULATED" in table
    receipt, request, response = (tmp_path / name for name in ("receipt.json", "request", "response"))
    chat: list[str | Path] = ["chat", serving.url, "Who keeps the key?", "--policy", serving.policy]
    chat += ["--token-file", serving.token_file, "--max-tokens", "8", "--receipt", receipt]
    status, answer, told = serving.strongroom(*chat, "--save-request", request, "--save-response", response)
    assert status == 0
    assert answer.strip()
    assert "receipt ok" in told
    check: list[str | Path] = ["receipt", "verify", receipt, "--policy", serving.policy]
    assert serving.strongroom(*check, "--request", request, "--response", response)[0] == 0
    response.write_bytes(response.read_bytes().replace(b"data", b"Data", 1))
    assert serving.strongroom(*check, "--request", request, "--response", response, check=False)[0] == 5


def test_the_vtpm_holds_the_log_too(serving: Site, tmp_path: Path) -> None:
    """PCR 15 is what a replay of the log in the evidence gives."""
    kept = tmp_path / "evidence.json"
    serving.strongroom("verify", serving.url, "--policy", serving.policy, "--save-evidence", kept)
    events = EventLog.from_json(json.loads(kept.read_text())["answer"]["channel"]["events"])
    assert [event.name for event in events.events] == [
        "userdata",
        "gpu",
        "engine",
        "keys",
        "model",
        "boot-done",
    ]
    log, pcr = EventLog(()), bytes(32)
    for event in events.events:
        log = log.extend(event)
        pcr = sha256(pcr + sha256(log.head).digest()).digest()
    with tpm.opened(serving.folder / "vtpm" / "tpm.sock") as device:
        assert device.read(PCR) == pcr


@pytest.mark.guarantee("G18")
def test_without_the_simulated_root_nothing_is_accepted(serving: Site, tmp_path: Path) -> None:
    lines = [line for line in serving.policy.read_text().splitlines() if "simulated" not in line]
    (tmp_path / "policy.yaml").write_text("\n".join(lines) + "\n")
    status, _, told = serving.strongroom(
        "verify", serving.url, "--policy", tmp_path / "policy.yaml", check=False
    )
    assert status == 5
    assert told.count("\n") == 1


def test_the_stock_openai_client(serving: Site, tmp_path: Path) -> None:
    certificate = tmp_path / "door.pem"
    serving.strongroom("verify", serving.url, "--policy", serving.policy, "--save-certificate", certificate)
    assert ask_openai(serving.url, certificate, TOKEN, MODEL, "Who keeps the key?").strip()


@pytest.mark.guarantee("G7")
def test_replayed_evidence_is_refused_by_the_broker(serving: Site) -> None:
    assert "nonce" in replay_to_broker(serving)


@pytest.mark.guarantee("G8")
def test_a_relayed_certificate_is_refused_by_the_client(serving: Site) -> None:
    sentence = relayed_certificate(serving)
    assert "report_data" in sentence or "another key" in sentence


SEARCH = r"""
import json, os, sys
asked = json.load(sys.stdin)
needles = [bytes.fromhex(n) for n in asked["needles"]]
found = set()
def look(where, data):
    for number, needle in enumerate(needles):
        if needle in data:
            found.add(f"{where} (form {number})")
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("cmdline", "environ"):
        try:
            look(f"/proc/{pid}/{name}", open(f"/proc/{pid}/{name}", "rb").read())
        except OSError:
            pass
seen = 0
for top in ("/run", "/etc", "/var", "/tmp", "/dev/shm"):
    for folder, names, files in os.walk(top):
        if folder.startswith(asked["but"]):
            names[:] = []
            continue
        names[:] = [n for n in names if not (folder == "/run" and n in ("credentials", "host"))]
        names[:] = [n for n in names if os.path.join(folder, n) != "/run/strongroom/model"]
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 1 << 28:
                try:
                    look(path, open(path, "rb").read())
                    seen += 1
                except OSError:
                    pass
print(json.dumps({"found": sorted(found), "seen": seen}))
"""


def search(made: Site, *needles: bytes) -> dict[str, Any]:
    """Where in the guest a needle is found, and how many files were read.

    The demo guest's root is this machine's own, so what lies below the checkout was there before the guest was.
    """
    asked = {"needles": [needle.hex() for needle in needles], "but": str(ROOT)}
    done = made.running.run("python3", "-c", SEARCH, input=json.dumps(asked).encode(), timeout=120.0)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.guarantee("G11")
def test_no_secret_is_in_a_command_line_environment_file_or_journal(
    serving: Site, workshop: Workshop
) -> None:
    """The actual model key, in the forms it could be written in, and the tenant's token."""
    key = VolumeKey.parse(workshop.new.key.read_bytes()).key
    forms = [key, key.hex().encode(), key.hex().upper().encode(), repr(key)[2:-1].encode()]
    forms += [base64.b64encode(key).rstrip(b"="), base64.urlsafe_b64encode(key).rstrip(b"="), TOKEN.encode()]
    result = search(serving, *forms)
    assert result["found"] == []
    assert result["seen"] > 50
    journal = serving.running.journal().encode()
    assert b"strongroom" in journal
    assert not [number for number, form in enumerate(forms) if form in journal]


@pytest.mark.guarantee("G11")
def test_the_search_would_find_one(serving: Site) -> None:
    marker = b"strongroom-search-marker"
    serving.running.run("sh", "-c", "cat > /var/tmp/marker", input=marker)
    found = search(serving, marker)["found"]
    serving.running.run("rm", "/var/tmp/marker")
    assert "/var/tmp/marker (form 0)" in found


@pytest.mark.guarantee("G14")
def test_no_prompt_or_answer_is_logged_or_kept(serving: Site, tmp_path: Path) -> None:
    marker = "copper lantern under the seventh stair"
    chat: list[str | Path] = ["chat", serving.url, marker, "--policy", serving.policy, "--max-tokens", "8"]
    _, answer, _ = serving.strongroom(*chat, "--token-file", serving.token_file)
    assert len(answer.split()) > 3
    journal = serving.running.journal()
    assert marker not in journal
    assert answer.strip() not in journal
    assert search(serving, marker.encode(), answer.strip().encode())["found"] == []


@pytest.mark.guarantee("G9")
def test_the_engine_sees_loopback_alone_and_no_credential(serving: Site) -> None:
    guest = serving.running
    pid = str(guest.main_pid(ENGINE))
    lines = guest.run("cat", f"/proc/{pid}/net/dev").stdout.decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    routes = guest.run("cat", f"/proc/{pid}/net/route").stdout.decode().splitlines()[1:]
    assert routes == []
    status = guest.run("cat", f"/proc/{pid}/status").stdout.decode()
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t0\t" not in status
    as_engine = ["runuser", "-u", "strongroom-engine", "--", "python3", "-c"]
    for path in (
        "/run/strongroom/credentials.sock",
        "/run/strongroom/evidence.sock",
        "/run/strongroom-proxy/admin.sock",
    ):
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        refused = guest.run(*as_engine, code, check=False)
        assert refused.status == 1
        assert b"PermissionError" in refused.stderr


@pytest.mark.guarantee("G11")
def test_root_inside_the_guest_gets_no_credential_by_asking(serving: Site) -> None:
    """Not even uid 0: only a peer that systemd bound to a unit's address is answered."""
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(5);"
        "s.connect('/run/strongroom/credentials.sock'); print(len(s.recv(100)))"
    )
    assert serving.running.run("python3", "-c", code).stdout.strip() == b"0"


def door_is_shut(made: Site) -> bool:
    try:
        with connect(made.cable.inside, 8443, timeout=1.0):
            return False
    except Exception:  # noqa: BLE001  refused, reset or silent: shut is shut
        return True


def until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def verified(made: Site) -> bool:
    return made.strongroom("verify", made.url, "--policy", made.policy, check=False)[0] == 0


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("unit", [DOOR, ENGINE])
def test_a_killed_part_shuts_the_door_and_comes_back_verified(serving: Site, unit: str) -> None:
    assert verified(serving)
    before = serving.record()["door"]["spki_sha256"]
    pid = serving.running.main_pid(unit)
    serving.running.run("kill", "-9", str(pid))
    assert until(lambda: door_is_shut(serving), AT_ONCE), f"{unit} died and the door stayed open"
    assert until(lambda: verified(serving), BACK), f"{unit} did not come back"
    assert serving.running.main_pid(unit) not in {0, pid}
    with connect(serving.cable.inside, 8443, timeout=5.0) as stream:
        certificate = x509.load_der_x509_certificate(stream.peer_certificate_der)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert sha256(spki).hexdigest() != before  # a new process has a new key
    chat: list[str | Path] = ["chat", serving.url, "Again?", "--policy", serving.policy, "--max-tokens", "4"]
    assert serving.strongroom(*chat, "--token-file", serving.token_file)[0] == 0


@pytest.mark.guarantee("G10")
def test_a_killed_file_system_is_back_before_a_reader_sees_an_error(serving: Site) -> None:
    guest = serving.running
    code = (
        "import os, sys, time; top = '/run/strongroom/model'; end = time.monotonic() + 8; n = 0\n"
        "while time.monotonic() < end:\n"
        "    for name in os.listdir(top):\n"
        "        with open(os.path.join(top, name), 'rb', buffering=0) as file:\n"
        "            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED); n += len(file.read())\n"
        "print(n)"
    )
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(
            guest.run, "runuser", "-u", "strongroom-engine", "--", "python3", "-c", code, timeout=60.0
        )
        before = guest.main_pid(ENGINE), guest.main_pid(DOOR)
        for _ in range(3):
            time.sleep(1.5)
            pid = guest.main_pid(FS)
            guest.run("kill", "-9", str(pid))
            assert until(lambda old=pid: guest.main_pid(FS) not in {0, old}, BACK)  # type: ignore[misc]
        assert int(reading.result().stdout) > 0
    assert (guest.main_pid(ENGINE), guest.main_pid(DOOR)) == before
    assert verified(serving)
    assert serving.record()["state"] == "serving"


@pytest.mark.guarantee("G10")
def test_a_killed_agent_ends_the_machine(serving: Site) -> None:
    """Last of all: nothing is left to talk to."""
    serving.running.run("kill", "-9", str(serving.running.main_pid(AGENT)))
    assert until(lambda: door_is_shut(serving), AT_ONCE)
    assert until(lambda: not serving.running.alive, 30.0)
    record = serving.record()
    assert record["state"] == "failed"
    assert record["error"].startswith("agent: ended by signal")
