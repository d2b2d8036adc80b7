"""State volumes in a boot under a real systemd: keys of a real broker, the units as shipped, and a program that writes.

The agent's stages are the real ones (tests/fakes/pushed_into.py), in the agent's own unit.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from demo.container import Bind, container
from demo.network import Cable, cable
from guest.stages.serve import TARGET
from guest.volumes import UNITS as VOLUMES
from strongroom.broker.resource import VolumeKey
from strongroom.host.run import PIPE, run, spawn
from tests import ROOT
from tests.fakes.gocryptfs import MASTER_KEY, fsck, program, write_volume
from tests.fakes.gocryptfs import mounted as really_mounted
from tests.fakes.sealed import MODEL_KEY, SealedFixture, pattern
from tests.fakes.silicon import KEPT, MEASUREMENT, silicon
from tests.integration.test_push_system import BACK, HERE, Guest, units_in
from tests.unit.guest.test_config import good, text

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.slow,
    pytest.mark.usefixtures("fuse_device", "systemd_host"),
]

STATE, DATA, WRITER, HOLDER = (
    f"{name}.service" for name in ("strongroom-live@state", "strongroom-live@data", "writer", "holder")
)
MOUNTS: Final = "/run/strongroom/volumes"
PORT: Final = 8444
MODEL_URI, STATE_URI, DATA_URI = (
    f"kbs:///default/{name}" for name in ("model/tiny", "volumes/a", "volumes/b")
)
READY: Final = 60.0  # seconds for a helper process to be ready
KILLS: Final = 3
THERE: Final = pattern(5000, 1)
# Appends numbered lines, each with an fsync; after an error it opens the file anew and writes the line again. Asked to
# stop, it says how many were safe, and that in the volume too.
WRITES: Final = f"""
import os, signal, time
at, asked, lines, errors = "{MOUNTS}/state", [], 0, 0
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
assert open(at + "/there", "rb").read()[:4096] == open("{MOUNTS}/data/there", "rb").read()[:4096]
while not asked:
    try:
        fd = os.open(at + "/log", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            while not asked:
                os.pwrite(fd, b"%0999d\\n" % lines, 1000 * lines)
                os.fsync(fd)
                lines += 1
        finally:
            os.close(fd)
    except OSError:
        errors += 1
        time.sleep(0.02)
with open(at + "/told", "w") as told:
    told.write(f"{{lines}} {{errors}}")
"""
# As the guide says: one goes on by itself, the other is started again with its volume.
BOUND: Final = f"[Unit]\nBindsTo={TARGET}\nAfter={TARGET} {STATE}\n"
PROGRAMS: Final = {
    WRITER: f"{BOUND}[Service]\nType=exec\nExecStart=/usr/lib/strongroom/venv/bin/python -I /srv/writer.py\n",
    HOLDER: f"{BOUND}Requires={STATE}\n[Service]\nType=exec\nWorkingDirectory={MOUNTS}/state\n"
    "ExecStart=/bin/sleep infinity\n",
}


def furnish(folder: Path, wire: Cable, sealed: SealedFixture, ca: str) -> bytes:
    """What is bound into the guest; the result is its userdata."""
    folder.chmod(0o755)
    (folder / "seed").mkdir()
    raw: dict[str, Any] = good()
    raw["broker"] = {"url": f"https://{wire.outside}:{PORT}", "ca": ca, "deadline_s": 60}
    raw["model"]["key"] = MODEL_URI
    raw["volumes"] = [
        {"name": "state", "source": "/srv/state.enc", "key": STATE_URI},
        {
            "name": "data",
            "source": "/srv/data.enc",
            "key": DATA_URI,
            "read_only": True,
            "side": "/srv/data.side",
        },
    ]
    (folder / "seed" / "user-data").write_bytes(text(raw))
    distribution = folder / "engine" / "lib" / "python3.11" / "site-packages" / "vllm-0.32.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    for name in ("state.enc", "data.enc"):
        write_volume(folder / name, contents={"there": THERE}, links={})
    (folder / "master").touch(mode=0o600)
    (folder / "master").write_bytes(MASTER_KEY)
    strongroom(
        "gocryptfs", "pin", folder / "data.enc", "--side-out", folder / "data.side", "--name", "data",
        "--epoch", "4", "--master-key", folder / "master", "--key-out", folder / "data.key",
    )  # fmt: skip
    model = VolumeKey(key=MODEL_KEY, root=sealed.root, epoch=sealed.epoch)
    (folder / "model.key").write_bytes(model.pack())
    (folder / "writer.py").write_text(WRITES)
    return text(raw)


def strongroom(*words: str | Path) -> None:
    run([sys.executable, "-m", "strongroom", *words], cwd=ROOT, timeout=READY)


def units(folder: Path) -> Path:
    at = units_in(folder)
    drop_in = at / "strongroom-live@.service.d"
    drop_in.mkdir()
    (drop_in / "here.conf").write_text(HERE)
    serving = (at / TARGET).read_text()
    (at / TARGET).write_text(re.sub("Upholds=.*", "", serving))  # there is nobody who would serve
    for name, content in PROGRAMS.items():
        (at / name).write_text(content)
    return at


def fill(folder: Path, userdata: bytes, keys: Mapping[str, Path]) -> None:
    """The broker's resources, each for this one guest."""
    policy = {
        "version": 1,
        "measurements": [{"name": "test image", "value": MEASUREMENT.hex()}],
        "host_data": [sha256(userdata).hexdigest()],
        "insecure_simulated_roots": [silicon().pki.ark_sha256.hex()],
    }
    (folder / "policy.yaml").write_text(json.dumps(policy))
    for uri, key in keys.items():
        strongroom("broker", "put", folder / "broker", uri, key, "--policy", folder / "policy.yaml")


@contextmanager
def booted(folder: Path, sealed: SealedFixture, key: bytes = MASTER_KEY) -> Iterator[Guest]:
    """A guest whose boot came to its end, whatever that is. `key` is what the broker has for the volume `state`."""
    program()
    with ExitStack() as stack:
        wire = stack.enter_context(cable())
        strongroom("broker", "init", folder / "broker", "--name", wire.outside)
        userdata = furnish(folder, wire, sealed, (folder / "broker" / "tls.crt").read_text())
        (folder / "state.key").write_bytes(key)
        keys = {MODEL_URI: "model.key", STATE_URI: "state.key", DATA_URI: "data.key"}
        fill(folder, userdata, {uri: folder / name for uri, name in keys.items()})
        log = stack.enter_context((folder / "broker.log").open("wb"))
        serve: list[str | Path] = [
            "broker",
            "serve",
            folder / "broker",
            "--listen",
            f"{wire.outside}:{PORT}",
            "--json",
        ]
        broker = spawn([sys.executable, "-m", "strongroom", *serve], cwd=ROOT, stdout=PIPE, stderr=log)
        stack.enter_context(broker).line(READY)
        binds = [
            Bind(units(folder), "/etc/systemd/system"),
            *(Bind(folder / name, f"/srv/{name}") for name in ("seed", "engine", "writer.py", "data.side")),
            Bind(folder / "data.enc", "/srv/data.enc"),
            Bind(folder / "state.enc", "/srv/state.enc", writable=True),
            Bind(sealed.path, "/srv/model"),
            Bind(ROOT, "/srv/strongroom"),
            Bind(Path(sys.prefix), "/usr/lib/strongroom/venv"),
            Bind(KEPT.resolve(), "/srv/pki"),
            Bind(ROOT / "systemd" / "strongroom.sysusers", "/etc/sysusers.d/strongroom.conf"),
            Bind(ROOT / "systemd" / "strongroom.tmpfiles", "/etc/tmpfiles.d/strongroom.conf"),
        ]
        console = stack.enter_context((folder / "guest.log").open("wb"))
        made = container(folder, name="volumes", namespace=wire.namespace, binds=binds, log=console)
        guest = Guest(stack.enter_context(made), folder, wire.inside)
        deadline = time.monotonic() + BACK
        while (record := guest.record()).get("state") not in ("serving", "failed"):
            assert guest.container.alive, (folder / "guest.log").read_text("utf-8", "replace")[-4000:]
            assert time.monotonic() < deadline, (record, guest.container.journal("-n", "60"))
            time.sleep(0.1)
        yield guest


def inside(guest: Guest, path: str) -> Path:
    return Path(f"/proc/{guest.container.pid()}/root{path}")


def until_grown(guest: Guest) -> None:
    """Until the program has written again."""
    log = inside(guest, f"{MOUNTS}/state/log")

    def size() -> int:
        try:
            return log.stat().st_size
        except OSError:
            return 0

    before, deadline = size(), time.monotonic() + BACK
    while size() <= before:
        assert time.monotonic() < deadline, guest.container.journal("-u", STATE, "-u", WRITER)
        time.sleep(0.02)


def until_back(guest: Guest, unit: str, before: int) -> int:
    """The unit's main process, once it is another than `before` and ready."""
    deadline = time.monotonic() + BACK
    while True:
        found = guest.container.main_pid(unit)
        if found not in (0, before) and guest.shown(unit, "ActiveState") == "active":
            return found
        assert time.monotonic() < deadline, guest.container.journal("-u", unit)
        time.sleep(0.05)


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G11")
def test_a_program_writes_to_a_volume_of_this_boot_through_kills(
    tmp_path: Path, pristine: SealedFixture
) -> None:
    with booted(tmp_path, pristine) as guest:
        record = guest.record()
        assert record.get("error") is None, guest.container.journal("-u", STATE, "-u", DATA)
        names = [stage["name"] for stage in record["stages"]]
        assert names == ["configure", "measure", "keys", "sockets", "volumes", "receive", "mount"]
        pinned = VolumeKey.parse((tmp_path / "data.key").read_bytes())
        assert record["volumes"] == [
            {"name": "state", "mount": f"{MOUNTS}/state", "read_only": False},
            {
                "name": "data", "mount": f"{MOUNTS}/data", "read_only": True, "epoch": 4, "root": pinned.root.hex(),
            },
        ]  # fmt: skip
        assert "volumes     state, data (read only)" in (tmp_path / "guest.log").read_text("utf-8", "replace")
        assert guest.shown(STATE, "StatusText") == "serving state.enc, writable"
        assert guest.shown(DATA, "StatusText").startswith("serving data epoch 4")
        for folder in (MOUNTS, "/run/strongroom"):
            assert inside(guest, folder).stat().st_mode & 0o7777 == 0o755

        guest.container.run("systemctl", "start", TARGET, WRITER, HOLDER)
        writer, holder, main = (guest.container.main_pid(unit) for unit in (WRITER, HOLDER, STATE))
        for _ in range(KILLS):
            until_grown(guest)
            guest.container.run("kill", "-9", str(main))
            main, holder = until_back(guest, STATE, main), until_back(guest, HOLDER, holder)
        until_grown(guest)
        assert guest.container.main_pid(WRITER) == writer
        guest.container.run("kill", "-9", str(before := guest.container.main_pid(DATA)))
        until_back(guest, DATA, before)
        assert inside(guest, f"{MOUNTS}/data/there").read_bytes() == THERE
        refused = guest.container.run("touch", f"{MOUNTS}/data/new", check=False)
        assert b"Read-only file system" in refused.stderr

        for stopped in (TARGET, VOLUMES):  # as the agent does in the end
            guest.container.run("systemctl", "stop", stopped)
        for unit in (WRITER, HOLDER, STATE, DATA):
            guest.until(unit, "ActiveState", "inactive")
            assert guest.shown(unit, "Result") == "success"
        assert not list(inside(guest, f"{MOUNTS}/state").iterdir())  # nobody ever wrote below
        journal = guest.container.journal()
        assert MASTER_KEY.hex() not in journal and "Traceback" not in journal
    checked = fsck(tmp_path / "state.enc")
    assert checked.status == 0, checked.stdout + checked.stderr
    with really_mounted(tmp_path / "state.enc") as top:
        lines, errors = map(int, (top / "told").read_text().split())
        assert (top / "log").read_bytes() == b"".join(b"%0999d\n" % line for line in range(lines))
        assert (top / "there").read_bytes() == THERE
    print(f"{KILLS} kills, {errors} errors, {lines} lines")
    assert errors >= 1


@pytest.mark.guarantee("G15")
def test_a_wrong_key_ends_the_boot_with_a_sentence(tmp_path: Path, pristine: SealedFixture) -> None:
    with booted(tmp_path, pristine, key=bytes(32)) as guest:
        record = guest.record()
        assert record["state"] == "failed"
        assert (
            record["error"]
            == record["stages"][-1]["error"]
            == (f"volume: no name opens under this key ({STATE} is failed (exit-code, exit status 5))")
        )
        assert record["stages"][-1]["name"] == "volumes"
        assert guest.shown(STATE, "NRestarts") == "0"
        assert guest.container.run("mountpoint", "-q", f"{MOUNTS}/state", check=False).status != 0
        assert guest.shown(DATA, "ActiveState") == "inactive"
        console = (tmp_path / "guest.log").read_text("utf-8", "replace")
        assert "because     volume: no name opens under this key" in console
