"""A model pushed into a guest under a real systemd: its units, users and folders as shipped, over a real network.

The agent's stages are the real ones (tests/fakes/pushed_into.py), in the agent's own unit; the provider is the command.
A disk is mounted at /srv/pushed, as the guide says.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demo.container import Bind, Container, container
from demo.network import cable
from strongroom.push.offer import spki_of
from strongroom.wire.canonical import b64u
from tests import ROOT
from tests.fakes.cutting import cutting
from tests.fakes.sealed import make_source, pattern
from tests.fakes.silicon import KEPT, MEASUREMENT, silicon
from tests.unit.guest.test_config import good, text

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.slow,
    pytest.mark.usefixtures("fuse_device", "systemd_host"),
]

AGENT: Final = "strongroom-agent.service"
UNIT: Final = "strongroom-receive.service"
PYTHON: Final = "/usr/lib/strongroom/venv/bin/python"
BACK: Final = 90.0  # seconds for whatever is to happen to have happened
PORT: Final = 8444
PROVIDER: Final = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
SIZE: Final = 24 << 20  # bytes of the largest file
# Only where its program is, and what it boots: everything around it is the product's.
HERE: Final = "[Service]\nEnvironment=PYTHONPATH=/srv/strongroom\nWorkingDirectory=/srv/strongroom\n"
START: Final = (
    f"ExecStart=\nExecStart={PYTHON} -P -m tests.fakes.pushed_into /srv/seed /srv/pki /srv/engine\n"
)


@dataclass(frozen=True)
class Guest:
    """A guest that waits for a model."""

    container: Container
    folder: Path
    address: str

    @property
    def model(self) -> Path:
        """The model's mount, as this machine sees it."""
        return Path(f"/proc/{self.container.pid()}/root/run/strongroom/model")

    @property
    def pushed(self) -> Path:
        """The disk that it is kept on."""
        return self.folder / "pushed"

    def record(self) -> dict[str, Any]:
        done = self.container.run("cat", "/run/strongroom/boot.json", check=False)
        record: dict[str, Any] = json.loads(done.stdout or b"{}")
        return record

    def shown(self, unit: str, name: str) -> str:
        return self.container.run("systemctl", "show", "-p", name, "--value", unit).stdout.decode().strip()

    def until(self, unit: str, name: str, *wanted: str) -> str:
        """The property once it begins with one of `wanted`."""
        deadline = time.monotonic() + BACK
        while not (found := self.shown(unit, name)).startswith(wanted):
            assert self.container.alive
            assert time.monotonic() < deadline, (found, self.record(), self.container.journal("-u", unit))
            time.sleep(0.05)
        return found

    def provider(self, port: int | None = None) -> subprocess.Popen[str]:
        """`strongroom push` of folder/source, under way."""
        url = f"https://{self.address}:{PORT}" if port is None else f"https://127.0.0.1:{port}"
        command = [sys.executable, "-m", "strongroom", "push", url, str(self.folder / "source")]
        command += ["--policy", str(self.folder / "policy.yaml"), "--key", str(self.folder / "provider.key")]
        command += ["--name", "tiny", "--epoch", "3", "--json"]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )


def units_in(folder: Path) -> Path:
    units = folder / "units"
    units.mkdir()
    for path in (ROOT / "systemd").iterdir():
        if path.suffix in {".service", ".socket", ".target"}:
            shutil.copyfile(path, units / path.name)
    for name in ("agent", "keysock", "receive", "fs"):
        drop_in = units / f"strongroom-{name}.service.d"
        drop_in.mkdir()
        (drop_in / "here.conf").write_text(HERE + (START if name == "agent" else ""))
    return units


def furnish(folder: Path) -> None:
    """Everything that is bound into the guest, and what the provider has."""
    folder.chmod(0o755)
    for name in ("seed", "source", "pushed"):
        (folder / name).mkdir()
    userdata = good()
    del userdata["broker"]
    key = b64u(spki_of(PROVIDER.public_key()))
    userdata["model"] = {"name": "tiny", "push": {"provider_keys": [key], "port": PORT, "max_gib": 1}}
    (folder / "seed" / "user-data").write_bytes(text(userdata))
    distribution = folder / "engine" / "lib" / "python3.11" / "site-packages" / "vllm-0.32.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    make_source(folder / "source")
    (folder / "source" / "big.safetensors").write_bytes(pattern(SIZE, 8))
    pem = PROVIDER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "provider.key").touch(mode=0o600)
    (folder / "provider.key").write_bytes(pem)
    policy = {
        "version": 1,
        "measurements": [{"name": "test image", "value": MEASUREMENT.hex()}],
        "host_data": [sha256(text(userdata)).hexdigest()],
        "insecure_simulated_roots": [silicon().pki.ark_sha256.hex()],
    }
    (folder / "policy.yaml").write_text(json.dumps(policy))


@contextmanager
def waiting(folder: Path, name: str) -> Iterator[Guest]:
    """A guest whose agent waits for the push, in the middle of its boot."""
    furnish(folder)
    binds = [
        Bind(units_in(folder), "/etc/systemd/system"),
        Bind(folder / "seed", "/srv/seed"),
        Bind(folder / "engine", "/srv/engine"),
        Bind(folder / "pushed", "/srv/pushed", writable=True),
        Bind(ROOT, "/srv/strongroom"),
        Bind(Path(sys.prefix), "/usr/lib/strongroom/venv"),
        Bind(KEPT.resolve(), "/srv/pki"),
        Bind(ROOT / "systemd" / "strongroom.sysusers", "/etc/sysusers.d/strongroom.conf"),
        Bind(ROOT / "systemd" / "strongroom.tmpfiles", "/etc/tmpfiles.d/strongroom.conf"),
    ]
    with (
        (folder / "guest.log").open("wb") as log,
        cable() as wire,
        container(folder, name=name, namespace=wire.namespace, binds=binds, log=log) as booting,
    ):
        guest, deadline = Guest(booting, folder, wire.inside), time.monotonic() + BACK
        while b"Started strongroom-receive.service" not in (told := (folder / "guest.log").read_bytes()):
            assert booting.alive, told.decode("utf-8", "replace")[-4000:]
            assert time.monotonic() < deadline, told.decode("utf-8", "replace")[-4000:]
            time.sleep(0.1)
        guest.until(UNIT, "StatusText", "waiting for a provider")
        yield guest


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def plain(folder: Path) -> dict[str, bytes]:
    top = folder / "source"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.mark.guarantee("G22")
@pytest.mark.guarantee("G11")
def test_a_model_is_pushed_while_the_agent_boots(tmp_path: Path) -> None:
    """Over a connection that is cut, into a door that is killed; then it is mounted and read back."""
    with waiting(tmp_path, "pushed") as guest:
        assert guest.shown(AGENT, "ActiveState") == "activating"
        assert guest.shown(UNIT, "StatusText").startswith("waiting for a provider")
        killed: list[int] = []

        def cut() -> None:
            if not killed:  # the first time the door itself, and systemd brings it back
                killed.append(guest.container.main_pid(UNIT))
                guest.container.run("kill", "-9", str(killed[0]))

        budgets = iter((SIZE // 3, SIZE // 3))
        with (
            cutting(guest.address, PORT, budgets, cut) as between,
            ended(guest.provider(between.port)) as push,
        ):
            out, err = push.communicate(timeout=BACK)
            assert push.returncode == 0, (err, guest.container.journal("-u", UNIT))
        accepted = json.loads(out)
        assert len(between.cuts) == 2
        assert killed != [0]
        guest.until(AGENT, "ActiveState", "active")
        record = guest.record()
        assert (record["state"], record.get("error")) == ("serving", None)
        assert record["model"] == {"name": "tiny", "root": accepted["root"], "epoch": 3}
        assert guest.shown(UNIT, "ActiveState") == "inactive"
        wanted = plain(tmp_path)
        assert {name: (guest.model / name).read_bytes() for name in wanted} == wanted
        receiver = int(guest.container.run("id", "-u", "strongroom-receive").stdout)
        kept = [path for path in guest.pushed.rglob("*") if path.name != "lost+found"]
        assert {path.stat().st_uid for path in kept} == {receiver}
        journal = guest.container.journal("-u", UNIT)
        for content in wanted.values():
            assert not any(content[:64] in path.read_bytes() for path in kept if path.is_file() and content)
        assert "defect" not in journal
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((guest.address, PORT), timeout=5)
