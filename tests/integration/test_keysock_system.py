"""Units of a real systemd at the key socket, with dstack's SDK as it is published: each gets its own, and no other's.

The key socket's units are the product's. The agent behind it is tests/fakes/booted.py, which has no model to serve.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from demo.container import Bind, Container, container
from demo.network import cable
from strongroom.errors import MachineError
from strongroom.host.run import run, spawn
from strongroom.keys.chain import key_digest_v0
from strongroom.keys.recoverable import compressed, private_key, recover
from tests import ROOT, dstack_suite, need
from tests.fakes.silicon import KEPT, silicon
from tests.unit.guest.test_config import good, text

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

UNIT: Final = "strongroom-keysock.service"
BACK: Final = 60.0  # seconds for a booted machine, and for a unit that starts again
PYTHON: Final = "/usr/lib/strongroom/venv/bin/python"
SDK: Final = "/srv/sdk/bin/python"
KEYS: Final = {
    "root": "ephemeral",
    "epoch": 2,
    "rules": [{"unit": "a.service", "methods": ["GetKey", "Attest", "Sign"], "paths": ["shared/"]}],
}
AGENT: Final = f"""\
[Unit]
Requires=strongroom-credentials.socket strongroom-applications.socket
After=basic.target strongroom-credentials.socket strongroom-applications.socket
[Service]
Type=notify
NotifyAccess=main
WorkingDirectory=/srv/strongroom
Environment=PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/strongroom
ExecStart={PYTHON} -P -m tests.fakes.booted /srv/seed /srv/pki
"""
PROGRAM: Final = """\
[Service]
Type=oneshot
DynamicUser=yes
Environment=PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/strongroom
ExecStart=/bin/sh /run/%n.sh
StandardOutput=truncate:/run/%n.out
StandardError=truncate:/run/%n.err
KillMode=process
"""
# Finds the socket as the SDK does. Says what it got for each path: the key's length and chain, or the refusal.
ASK: Final = """
import json
import dstack_sdk, httpx
client = dstack_sdk.DstackClient()
said = {"version": dstack_sdk.__dict__.get("__version__"), "app": client.info().app_name}
for path in ("a.service/db", "b.service/db", "shared/x"):
    try:
        key = client.get_key(path, "signing")
        said[path] = {"key": key.key, "chain": key.signature_chain}
    except httpx.HTTPStatusError as error:
        said[path] = {"status": error.response.status_code, **error.response.json()}
try:
    client.get_quote("x")
except httpx.HTTPStatusError as error:
    said["quote"] = {"status": error.response.status_code, **error.response.json()}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the machine is made of."""
    folder = tmp_path_factory.mktemp("keysock-system")
    folder.chmod(0o755)
    units, seed, programs = (folder / name for name in ("units", "seed", "programs"))
    for made in (units, seed, programs):
        made.mkdir()
    for path in (ROOT / "systemd").iterdir():
        if path.suffix in {".service", ".socket", ".target"}:
            shutil.copyfile(path, units / path.name)
    (units / "strongroom-agent.service").write_text(AGENT)
    drop_in = units / f"{UNIT}.d"
    drop_in.mkdir()
    (drop_in / "here.conf").write_text("[Service]\nEnvironment=PYTHONPATH=/srv/strongroom\n")
    for name in ("a", "b"):
        (units / f"{name}.service").write_text(PROGRAM)
    (seed / "user-data").write_bytes(text(good() | {"keys": KEYS}))
    (programs / "ask.py").write_text(ASK)
    return folder


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Container]:
    """A guest that has booted."""
    need(shutil.which("systemd-nspawn"), "no systemd-nspawn: run ./setup.sh guest")
    need(run(["id", "-u"]).stdout.strip() == b"0", "booting a container needs root")
    try:
        dstack_suite.prepare()
    except MachineError as error:
        need(False, f"pip gave no dstack-sdk: {error}")
    silicon()  # its authority is made before it is needed inside
    binds = [
        Bind(folder / "units", "/etc/systemd/system"),
        Bind(folder / "seed", "/srv/seed"),
        Bind(folder / "programs", "/srv/programs"),
        Bind(ROOT, "/srv/strongroom"),
        Bind(Path(sys.prefix), "/usr/lib/strongroom/venv"),
        Bind(dstack_suite.ENVIRONMENT.resolve(), "/srv/sdk"),
        Bind(KEPT.resolve(), "/srv/pki"),
        Bind(ROOT / "systemd" / "strongroom.sysusers", "/etc/sysusers.d/strongroom.conf"),
        Bind(ROOT / "systemd" / "strongroom.tmpfiles", "/etc/tmpfiles.d/strongroom.conf"),
    ]
    with (
        (folder / "guest.log").open("wb") as log,
        cable() as wire,
        container(folder, name="keysock", namespace=wire.namespace, binds=binds, log=log) as guest,
    ):
        deadline = time.monotonic() + BACK
        while b"Reached target strongroom.target" not in (folder / "guest.log").read_bytes():
            assert guest.alive, (folder / "guest.log").read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < deadline, guest.journal("-u", UNIT, "-u", "strongroom-agent.service")
            time.sleep(0.1)
        yield guest


def as_unit(machine: Container, unit: str, command: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command that a unit runs."""
    machine.run("sh", "-c", f"cat >/run/{unit}.sh", input=command.encode())
    done = machine.run("systemctl", "start", unit, check=False)
    out, err = (machine.run("cat", f"/run/{unit}.{name}").stdout.decode() for name in ("out", "err"))
    shown = machine.run("systemctl", "show", "-p", "ExecMainStatus", "--value", unit).stdout
    assert done.status == 0 or int(shown), machine.journal("-u", unit)
    return int(shown), out, err


def asked(machine: Container, unit: str) -> dict[str, Any]:
    """What the SDK gets in that unit."""
    status, out, err = as_unit(machine, unit, f"{SDK} /srv/programs/ask.py")
    assert status == 0, err
    said: dict[str, Any] = json.loads(out)
    return said


def strongroom(machine: Container, unit: str, words: str) -> tuple[int, str, str]:
    """What our own command says in that unit."""
    return as_unit(machine, unit, f"{PYTHON} -m strongroom {words}")


@pytest.mark.guarantee("G20")
def test_a_reads_its_key_and_b_is_refused(machine: Container) -> None:
    a, b = asked(machine, "a.service"), asked(machine, "b.service")
    root = json.loads(strongroom(machine, "a.service", "status --json")[1])["keys"]["app_root_public"]
    for said, mine, other in ((a, "a.service/db", "b.service/db"), (b, "b.service/db", "a.service/db")):
        key = bytes.fromhex(said[mine]["key"])
        digest = key_digest_v0("signing", compressed(private_key(key).public_key()))
        assert recover(digest, bytes.fromhex(said[mine]["chain"][0])).hex() == root
        assert said[other]["status"] == 403
    assert b["a.service/db"]["error"] == (
        "b.service: no rule has path 'a.service/db', want one in strongroom.keys.rules with unit: b.service, "
        "paths: ['a.service/db']"
    )
    assert "key" in a["shared/x"]
    assert b["shared/x"]["status"] == 403
    assert a["quote"]["error"] == (
        "a.service: no rule may call GetQuote, want one in strongroom.keys.rules with unit: a.service, "
        "methods: [GetQuote]"
    )


def test_it_is_the_same_key_for_all_of_a_unit_and_after_a_kill(machine: Container) -> None:
    """By the SDK, by the command line, and from a key socket that had to start again."""
    first = asked(machine, "a.service")["a.service/db"]["key"]
    assert strongroom(machine, "a.service", "key get a.service/db --dstack --print hex")[1].strip() == first
    before = machine.main_pid(UNIT)
    machine.run("kill", "-9", str(before))
    deadline = time.monotonic() + BACK
    while machine.main_pid(UNIT) in (0, before):
        assert time.monotonic() < deadline, machine.journal("-u", UNIT)
        time.sleep(0.05)
    assert asked(machine, "a.service")["a.service/db"]["key"] == first  # it waits for who is starting


def test_the_command_line_says_who_one_is(machine: Container) -> None:
    status = json.loads(strongroom(machine, "a.service", "status --json")[1])
    assert (status["caller"], status["tee"], status["keys"]["root"]) == ("a.service", "snp", "ephemeral")
    assert status["rights"]["paths"] == ["a.service/", "shared/"]
    evidence = json.loads(strongroom(machine, "a.service", "quote --path a.service/id --json")[1])
    assert evidence["caller"] == "a.service"
    code, out, told = strongroom(machine, "b.service", "key get a.service/db --print hex")
    assert (code, out) == (6, "")
    assert told.startswith("strongroom: b.service: no rule has path 'a.service/db', want one in")


def test_who_runs_in_no_unit_is_its_uid(machine: Container) -> None:
    done = machine.run("env", "PYTHONPATH=/srv/strongroom", PYTHON, "-m", "strongroom", "status", "--json")
    assert json.loads(done.stdout)["caller"] == "uid-0"


def test_the_sockets_are_there_and_no_key_is_in_the_journal(machine: Container) -> None:
    said = asked(machine, "a.service")
    for path in (
        "/run/dstack.sock",
        "/var/run/tappd.sock",
        "/run/strongroom/agent.sock",
        "/run/strongroom/quote.sock",
    ):
        assert machine.run("stat", "-c", "%F", path).stdout.strip() == b"socket"
    journal = machine.journal()
    assert UNIT in journal or "Strongroom key socket" in journal
    assert said["a.service/db"]["key"] not in journal


# Connects, leaves the connection to a child, says its pid and ends. The child asks for a's key when it is told to.
HEIR: Final = """
import os, socket, time
client = socket.socket(socket.AF_UNIX)
client.connect("/run/dstack.sock")
if os.fork():
    print(os.getpid(), flush=True)
    os._exit(0)
os.setsid()  # or the pid would stay taken, as the name of a session
while not os.path.exists("/run/go"):
    time.sleep(0.02)
body = b'{"path":"a.service/db"}'
head = b"POST /GetKey HTTP/1.1\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
try:
    client.sendall(head % len(body) + body)
except OSError:
    pass
os.write(1, client.recv(65536) + b"\\n")
"""
SUCCESSOR: Final = "echo $$ >/sys/fs/cgroup/system.slice/a.service/cgroup.procs && exec sleep 60"


@pytest.mark.guarantee("G20")
def test_a_pid_that_is_a_process_of_another_unit_by_now(machine: Container, folder: Path) -> None:
    """b connects and ends before it is seen; when it is looked at, its pid is a process of a's."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    need(last.exists(), "this kernel lets nobody choose a pid")
    (folder / "programs" / "heir.py").write_text(HEIR)
    for _ in range(10):
        if inherited(machine):
            return
    pytest.fail("no pid was taken by another process in ten rounds")


def inherited(machine: Container) -> bool:
    """One attempt, which must end in a refusal; whether the pid was another's by then."""
    server, guest = str(machine.main_pid(UNIT)), str(machine.pid())
    machine.run("rm", "-f", "/run/go")
    machine.run("mkdir", "-p", "/sys/fs/cgroup/system.slice/a.service")
    machine.run("kill", "-STOP", server)
    try:
        _, said, told = as_unit(machine, "b.service", f"exec {SDK} /srv/programs/heir.py")
        assert said, told
        pid = int(said)
        # The sysctl is read-only inside; from outside it is that of the pid namespace of whoever writes.
        run(["nsenter", "-t", guest, "-p", "--", "sh", "-c", f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid"])
        with spawn(["nsenter", "-t", guest, "-a", "--", "sh", "-c", SUCCESSOR], grace=5.0):
            time.sleep(0.2)
            cgroup = machine.run("cat", f"/proc/{pid}/cgroup", check=False).stdout.decode()
            machine.run("kill", "-CONT", server)
            machine.run("touch", "/run/go")
            answer = heard(machine)
    finally:
        machine.run("kill", "-CONT", server, check=False)
    assert answer.startswith("HTTP/1.1 403 Forbidden")
    assert "it has ended, want it alive" in answer
    return "/a.service" in cgroup


def heard(machine: Container) -> str:
    """What the child was answered."""
    deadline = time.monotonic() + BACK
    while True:
        _, _, answer = machine.run("cat", "/run/b.service.out").stdout.decode().partition("\n")
        if answer.endswith("\n"):
            return answer
        assert time.monotonic() < deadline, machine.journal("-u", "b.service")
        time.sleep(0.02)
