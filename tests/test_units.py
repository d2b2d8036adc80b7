"""The unit files: systemd finds no fault in them, and each stays below the exposure it names in its first comment."""

import re
import shutil
from pathlib import Path

import pytest

from guest import bounds
from guest.volumes import MOUNTS
from guest.volumes import UNITS as VOLUMES
from strongroom.host.run import run
from tests import ROOT, need

UNITS = sorted(p for p in (ROOT / "systemd").iterdir() if p.suffix in {".service", ".socket", ".target"})
SERVICES = [path for path in UNITS if path.suffix == ".service"]
DAEMONS = {
    "strongroom-agent",
    "strongroom-fs",
    "strongroom-live@",
    "strongroom-engine",
    "strongroom-proxy",
    "strongroom-receive",
    "strongroom-keysock",
    "strongroom-coco",
}


def text(name: str) -> str:
    return (ROOT / "systemd" / name).read_text()


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with a command that exists on this machine: verify looks for it."""
    need(shutil.which("systemd-analyze"), "no systemd-analyze: run ./setup.sh guest")
    folder = tmp_path_factory.mktemp("units")
    for path in UNITS:
        content = re.sub(r"/usr/lib/strongroom/venv/bin/python", "/bin/true", path.read_text())
        (folder / path.name).write_text(re.sub("SocketGroup=strongroom-[a-z]+", "SocketGroup=root", content))
    return folder


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.name)
def test_systemd_finds_no_fault(laid_out: Path, path: Path) -> None:
    env = {"SYSTEMD_UNIT_PATH": f"{laid_out}:", "SYSTEMD_LOG_LEVEL": "warning"}
    done = run(["systemd-analyze", "verify", "--man=no", laid_out / path.name], env=env, check=False)
    complaints = [line for line in done.stderr.decode().splitlines() if "strongroom" in line]
    assert done.status == 0, complaints
    assert not complaints


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("path", SERVICES, ids=lambda p: p.name)
def test_exposure_stays_below_the_units_own_threshold(laid_out: Path, path: Path) -> None:
    found = re.match(r"# Security threshold: (\d+\.\d)\n", path.read_text())
    assert found, f"{path.name}: first line names no threshold"
    threshold = round(float(found[1]) * 10)
    argv: list[str | Path] = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={threshold}",
        laid_out / path.name,
    ]
    done = run(argv, check=False)
    assert done.status == 0, done.stdout.decode().strip().splitlines()[-1]


@pytest.mark.guarantee("G10")
def test_every_part_is_bound_to_the_agent() -> None:
    for name in ("strongroom-fs.service", "strongroom-engine.service", "strongroom-proxy.service",
                 "strongroom-receive.service", "strongroom-netns.service", "strongroom-keysock.service",
                 "strongroom-coco.service", "strongroom-live@.service", "strongroom-serving.target"):  # fmt: skip
        assert re.search(r"^BindsTo=.*strongroom-agent\.service", text(name), re.MULTILINE), name


@pytest.mark.guarantee("G10")
def test_a_dead_agent_or_a_part_beyond_repair_ends_the_machine() -> None:
    assert "FailureAction=poweroff-force" in text("strongroom-agent.service")
    assert "Restart=no" in text("strongroom-agent.service")
    for name in ("strongroom-fs.service", "strongroom-engine.service", "strongroom-proxy.service"):
        assert "StartLimitAction=poweroff-force" in text(name), name


@pytest.mark.guarantee("G11")
def test_keys_come_by_credential_and_nothing_dumps_core() -> None:
    for name in ("strongroom-fs.service", "strongroom-live@.service", "strongroom-receive.service"):
        assert "LoadCredential=model-key:/run/strongroom/credentials.sock" in text(name)
    for path in SERVICES:
        content = path.read_text()
        assert "LimitCORE=0" in content, path.name
        assert "EnvironmentFile" not in content, path.name
        assert "SetCredential" not in content, path.name


@pytest.mark.guarantee("G9")
def test_the_engine_has_no_network_no_privilege_and_its_own_user() -> None:
    engine = text("strongroom-engine.service")
    assert "NetworkNamespacePath=/run/netns/strongroom-engine" in engine
    assert "User=strongroom-engine" in engine
    assert "CapabilityBoundingSet=\n" in engine
    assert "model-key" not in engine


@pytest.mark.guarantee("G19")
def test_a_gpu_image_adds_devices_and_the_one_right_it_takes() -> None:
    drop_ins = {path.parent.name: path.read_text() for path in (ROOT / "image" / "gpu").glob("*.d/gpu.conf")}
    assert set(drop_ins) == {"strongroom-agent.service.d", "strongroom-engine.service.d"}
    assert "CapabilityBoundingSet=CAP_SYS_ADMIN\n" in drop_ins["strongroom-agent.service.d"]
    assert "CapabilityBoundingSet" not in drop_ins["strongroom-engine.service.d"]
    assert "DevicePolicy=closed" in drop_ins["strongroom-engine.service.d"]


def test_daemons_are_watched() -> None:
    for name in sorted(DAEMONS - {"strongroom-engine"}):
        assert "WatchdogSec=" in text(f"{name}.service"), name


def test_what_is_pushed_goes_to_one_place_and_the_door_for_it_is_not_kept_up() -> None:
    receive = text("strongroom-receive.service")
    assert re.findall(r"^ReadWritePaths=(.*)$", receive, re.MULTILINE) == [str(Path(bounds.PUSHED).parent)]
    assert "CapabilityBoundingSet=\n" in receive
    assert "strongroom-receive" not in text("strongroom-serving.target")
    folder = f"d {Path(bounds.PUSHED).parent} "
    assert any(line.startswith(folder) for line in text("strongroom.tmpfiles").splitlines())


def test_state_volumes_have_a_place_that_only_root_can_change() -> None:
    assert f"d {MOUNTS} 0755 root root -" in text("strongroom.tmpfiles").splitlines()
    assert VOLUMES == "strongroom-live@*.service"


def test_what_a_live_volume_was_writing_outlives_its_daemon() -> None:
    live = text("strongroom-live@.service")
    assert "RuntimeDirectory=strongroom-fs\n" in live
    assert "RuntimeDirectoryPreserve=yes\n" in live
    rights = re.findall(r"^CapabilityBoundingSet=(.*)$", live, re.MULTILINE)
    assert rights == ["CAP_SYS_ADMIN CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_MKNOD"]
    assert re.findall(r"^DeviceAllow=(.*)$", live, re.MULTILINE) == ["/dev/fuse rw", "char-* m", "block-* m"]
