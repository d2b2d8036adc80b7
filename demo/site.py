"""One demo site: broker, simulated silicon, vTPM and guest around a sealed model, set up and taken down as a whole.

The demo, the attacks and the system tests all use it; an attack is one changed field of Scenario.
"""

import hashlib
import json
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from demo.container import Bind, Container, container
from demo.network import Cable, cable
from demo.payload import BUILD, ROOT, Payload, make_payload
from demo.silicon.vtpm import vtpm
from demo.silicon.vtpm_authority import certify
from strongroom.errors import MachineError
from strongroom.host.run import PIPE, Child, run, spawn

PYTHON: Final = Path(sys.executable)
RESOURCE: Final = "kbs:///demo/model/tiny"
MODEL: Final = "tiny-llama"
DOOR_PORT: Final = 8443
BROKER_PORT: Final = 8444
TOKEN: Final = "demo-token-not-a-secret"  # printed by the demo for everybody to use
_READY: Final = 30.0  # seconds for a helper process to be ready


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed tree and the key file that belongs to it."""

    tree: Path
    key: Path
    root: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What all sites of one run share: the payload, and the model sealed twice."""

    folder: Path
    payload: Payload
    old: Sealed  # epoch 1
    new: Sealed  # epoch 2


def _same(userdata: bytes) -> bytes:
    return userdata


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How a site is set up. The defaults are the honest one."""

    sealed: Path | None = None  # tree put at the guest's /srv/model instead of the right one
    edit: Callable[[bytes], bytes] = _same  # userdata before launch
    handed_over: Callable[[bytes], bytes] = _same  # launched userdata -> what the guest is given
    silicon: tuple[str, ...] = ()  # further flags of the silicon
    broker: str = "ours"  # "ours", "silent" (accepts and never answers) or "none"
    host_data: str | None = None  # what the broker's policy wants, if not the launched userdata's hash
    units: Path | None = None  # booted and measured instead of the payload's units
    wrong_ca: bool = False  # userdata pins another broker than the one that answers
    deadline_s: int = 20


@dataclass(slots=True)
class Site:
    """A running site."""

    folder: Path
    workshop: Workshop
    cable: Cable
    userdata: bytes = b""
    guest: Container | None = None
    broker_url: str = ""
    broker_ca: str = ""
    measurement: str = ""
    ark_sha256: str = ""
    vtpm_root_sha256: str = ""
    tsm: Path = field(default_factory=Path)

    @property
    def url(self) -> str:
        return f"https://{self.cable.inside}:{DOOR_PORT}"

    @property
    def policy(self) -> Path:
        """The client's policy: this image, this userdata, this model or newer."""
        return self.folder / "policy.yaml"

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    @property
    def running(self) -> Container:
        if self.guest is None:
            raise MachineError("site: the guest was not started")
        return self.guest

    def record(self) -> dict[str, Any]:
        """The guest's boot record; empty before there is one."""
        try:
            content: dict[str, Any] = json.loads((self.folder / "run" / "boot.json").read_text())
        except FileNotFoundError:
            return {}
        return content

    def wait(self, *states: str, timeout: float = 300.0) -> dict[str, Any]:
        """The record once its state is one of `states`; MachineError when the guest ends or time runs out before."""
        deadline = time.monotonic() + timeout
        while (found := self.record()).get("state") not in states:
            if not self.running.alive and self.record().get("state") not in states:
                raise MachineError(
                    f"guest: ended in state {self.record().get('state')}, log {self.folder / 'guest.log'}"
                )
            if time.monotonic() > deadline:
                raise MachineError(
                    f"guest: state is {found.get('state')} after {timeout:g} s, want {' or '.join(states)}"
                )
            time.sleep(0.05)
        return found

    def strongroom(
        self, *argv: str | Path, check: bool = True, timeout: float = 120.0
    ) -> tuple[int, str, str]:
        """Run the `strongroom` command: exit status, standard output, standard error."""
        done = run([PYTHON, "-m", "strongroom", *argv], cwd=ROOT, check=check, timeout=timeout)
        return done.status, done.stdout.decode(), done.stderr.decode()


def make_workshop(folder: Path) -> Workshop:
    """Lay out the payload, make the model, seal it for epoch 1 and epoch 2."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not (model / "config.json").exists():
        run([BUILD / "engine" / "bin" / "python", ROOT / "demo" / "model.py", model], timeout=300.0)
    return Workshop(
        folder=folder, payload=make_payload(folder), old=_seal(folder, model, 1), new=_seal(folder, model, 2)
    )


def _seal(folder: Path, model: Path, epoch: int) -> Sealed:
    tree, key = folder / f"sealed-{epoch}", folder / f"key-{epoch}.json"
    shutil.rmtree(tree, ignore_errors=True)
    key.unlink(missing_ok=True)
    argv: list[str | Path] = [PYTHON, "-m", "strongroom", "seal", model, tree]
    argv += ["--epoch", str(epoch), "--name", MODEL, "--key-out", key, "--json"]
    done = run(argv, cwd=ROOT, timeout=300.0)
    return Sealed(tree=tree, key=key, root=str(json.loads(done.stdout)["root"]), epoch=epoch)


@contextmanager
def site(workshop: Workshop, folder: Path, scenario: Scenario | None = None) -> Iterator[Site]:
    """A site up to the moment the guest starts booting; see Site.wait for what comes of it."""
    scenario = scenario or Scenario()
    if (folder / "tsm").is_mount():  # left by a run that was killed
        run(["umount", "--lazy", folder / "tsm"])
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("run", "seed", "tsm", "vtpm", "broker"):
        (folder / name).mkdir(parents=True)
    with ExitStack() as stack:
        made = Site(folder=folder, workshop=workshop, cable=stack.enter_context(cable()))
        _broker_identity(made, scenario)
        made.userdata = scenario.edit(_userdata(made, scenario))
        (folder / "seed" / "user-data").write_bytes(scenario.handed_over(made.userdata))
        _silicon(made, scenario, stack)
        made.vtpm_root_sha256 = certify(stack.enter_context(vtpm(folder / "vtpm"))).hex()
        _policies(made, scenario)
        if scenario.broker == "ours":
            _broker(made, stack)
        elif scenario.broker == "silent":
            stack.enter_context(socket.create_server((made.cable.outside, BROKER_PORT)))
        made.token_file.write_text(TOKEN)
        made.guest = _guest(made, scenario, stack)
        yield made


def _broker_identity(made: Site, scenario: Scenario) -> None:
    made.strongroom("broker", "init", made.folder / "broker", "--name", made.cable.outside)
    made.broker_ca = (made.folder / "broker" / "tls.crt").read_text()
    if scenario.wrong_ca:
        made.strongroom("broker", "init", made.folder / "other-broker", "--name", made.cable.outside)
        made.broker_ca = (made.folder / "other-broker" / "tls.crt").read_text()
    made.broker_url = f"https://{made.cable.outside}:{BROKER_PORT}"


def _payload(made: Site, scenario: Scenario) -> Payload:
    """What is really started, which is also what the silicon measures."""
    payload = made.workshop.payload
    return payload if scenario.units is None else replace(payload, units=scenario.units)


def _userdata(made: Site, scenario: Scenario) -> bytes:
    ca = "".join(f"      {line}\n" for line in made.broker_ca.strip().splitlines())
    return (
        "#cloud-config\n"
        "strongroom:\n"
        "  version: 1\n"
        "  gpus: 0\n"
        "  broker:\n"
        f"    url: {made.broker_url}\n"
        f"    deadline_s: {scenario.deadline_s}\n"
        f"    ca: |\n{ca}"
        "  model:\n"
        f"    name: {MODEL}\n"
        "    source: /srv/model\n"
        f'    key: "{RESOURCE}"\n'
        "  engine: {max_model_len: 256, max_num_seqs: 4, kv_cache_gib: 1}\n"
        "  door:\n"
        f"    port: {DOOR_PORT}\n"
        "    names: [strongroom.example]\n"
        f"    tenants: [{{name: demo, token_sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}}}]\n"
    ).encode()


def _silicon(made: Site, scenario: Scenario, stack: ExitStack) -> None:
    images = [word for image in _payload(made, scenario).images for word in ("--image", image)]
    made.tsm = made.folder / "tsm"
    argv: list[str | Path] = [
        PYTHON, "-m", "demo.silicon", "serve", "--mount", made.tsm, "--state", made.workshop.folder / "silicon",
        "--host-data", hashlib.sha256(made.userdata).hexdigest(), *images, *scenario.silicon,
    ]  # fmt: skip
    chip = stack.enter_context(spawn(argv, cwd=ROOT, stdout=PIPE))
    ready = json.loads(chip.line(_READY))
    made.measurement, made.ark_sha256 = ready["measurement"], ready["ark_sha256"]


def _policies(made: Site, scenario: Scenario) -> None:
    """What the model owner accepts: golden values computed from the payload, never read from the silicon."""
    new = made.workshop.new
    host_data = scenario.host_data or hashlib.sha256(made.userdata).hexdigest()
    text = (
        "version: 1\n"
        f"measurements: [{{name: demo, value: {made.workshop.payload.measure().hex()}}}]\n"
        f"host_data: [{host_data}]\n"
        "products: [Genoa]\n"
        "minimum_tcb: {bootloader: 1, tee: 0, snp: 1, microcode: 1}\n"
    )
    (made.folder / "broker-policy.yaml").write_text(f"{text}insecure_simulated_roots: [{made.ark_sha256}]\n")
    made.policy.write_text(
        f"{text}insecure_simulated_roots: [{made.ark_sha256}, {made.vtpm_root_sha256}]\n"
        f"model: {{root: {new.root}, minimum_epoch: {new.epoch}}}\n"
        "tpm: {states: [{name: demo, pcrs: {pcr15: events}}]}\n"
    )
    made.strongroom(
        "broker",
        "put",
        made.folder / "broker",
        RESOURCE,
        new.key,
        "--policy",
        made.folder / "broker-policy.yaml",
    )


def _broker(made: Site, stack: ExitStack) -> Child:
    log = stack.enter_context((made.folder / "broker.log").open("wb"))
    argv: list[str | Path] = [
        PYTHON, "-m", "strongroom", "broker", "serve", made.folder / "broker",
        "--listen", f"{made.cable.outside}:{BROKER_PORT}", "--json",
    ]  # fmt: skip
    broker = stack.enter_context(spawn(argv, cwd=ROOT, stdout=PIPE, stderr=log))
    broker.line(_READY)
    return broker


def _guest(made: Site, scenario: Scenario, stack: ExitStack) -> Container:
    log = stack.enter_context((made.folder / "guest.log").open("wb"))
    binds = [
        *_payload(made, scenario).binds(),
        Bind(made.folder / "seed", "/var/lib/cloud/seed/nocloud"),
        Bind(scenario.sealed or made.workshop.new.tree, "/srv/model"),
        Bind(made.folder / "run", "/run/strongroom", writable=True),
        Bind(made.tsm, "/run/tsm", writable=True),
        Bind(made.folder / "vtpm", "/run/vtpm", writable=True),
    ]
    name = made.cable.namespace
    return stack.enter_context(container(made.folder, name=name, namespace=name, binds=binds, log=log))
