"""The simulated silicon as a machine sees it: a mounted tree, asked through the production client, verified.

What a genuine-looking machine may not get away with is shown here: a root of its own, debugging, an old TCB.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from guest.machine.tsm import TSM
from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import appraise
from strongroom.cli.main import main
from strongroom.errors import MachineError, PolicyError, VerifyError
from strongroom.evidence.binding import Purpose, report_data
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.run import PIPE, Child, run, spawn
from strongroom.host.tree import measure
from strongroom.host.yamltext import parse_yaml
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import PRODUCTION
from strongroom.verify.snp import verify_report
from tests import ROOT
from tests.fakes.silicon import pki

HOST_DATA = "5a" * 32
EVENTS = EventLog((Event("userdata", bytes(32)),))

Machine = tuple[dict[str, Any], Child]
Serve = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "agent.py").write_text("print()\n")
    return tmp_path / "code"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state with the kept test authority in it: making one takes seconds."""
    pki()
    state = tmp_path / "state"
    state.mkdir()
    run(["cp", "-a", ROOT / "build" / "test-pki", state / "pki"])
    return state


@pytest.fixture
def serve(fuse_device: Path, tmp_path: Path, image: Path, state: Path) -> Serve:
    @contextmanager
    def served(*flags: str) -> Iterator[Machine]:
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "demo.silicon",
            "serve",
            "--mount",
            tmp_path / "tsm",
            "--state",
            state,
        ]
        argv += ["--host-data", HOST_DATA, *(flags or ("--image", str(image)))]
        with spawn(argv, cwd=ROOT, stdout=PIPE) as child:
            yield json.loads(child.line(60)), child

    return served


def ask(ready: dict[str, Any], challenge: bytes = bytes(32), key: bytes = b"key") -> Bundle:
    """What the agent does with a request for evidence."""
    context = report_data(
        purpose=Purpose.BOOT, challenge=challenge, key=key, gpu_digest=b"", context=EVENTS.head
    )
    answer = TSM(Path(ready["mount"])).report(context)
    return Bundle(
        report=answer.outblob,
        certificates=answer.auxblob,
        events=EVENTS,
        purpose=Purpose.BOOT,
        challenge=challenge,
    )


def claims(ready: dict[str, Any], bundle: Bundle) -> Claims:
    return verify_bundle(
        bundle,
        purpose=Purpose.BOOT,
        challenge=bytes(32),
        key=b"key",
        roots=PRODUCTION.with_insecure([bytes.fromhex(ready["ark_sha256"])]),
        now=datetime.now(UTC),
    )


def policy(image: Path, tmp_path: Path, ready: dict[str, Any], *flags: str) -> Policy:
    """What `strongroom measure` writes for this image, with the simulated root named."""
    path = tmp_path / "policy.yaml"
    words = ["measure", str(image), "--policy-out", str(path), "--name", "demo", "--host-data", HOST_DATA]
    assert main([*words, "--insecure-simulated-root", ready["ark_sha256"], *flags]) == 0
    return Policy.from_raw(parse_yaml(path.read_bytes(), "policy"))


def test_a_report_through_the_abi_verifies_and_is_acceptable(
    serve: Serve, image: Path, tmp_path: Path
) -> None:
    with serve() as (ready, _):
        found = claims(ready, ask(ready))
        verdict = appraise(found, policy(image, tmp_path, ready), now=datetime.now(UTC))
    assert ready["measurement"] == measure([str(image)]).hex() == found.measurement.hex()
    assert found.host_data.hex() == HOST_DATA
    assert found.simulated
    verdict.require()
    assert verdict.simulated


@pytest.mark.guarantee("G18")
def test_production_roots_refuse_it(serve: Serve, image: Path, tmp_path: Path) -> None:
    with serve() as (ready, _):
        bundle = ask(ready)
        accepting = policy(image, tmp_path, ready)
    report, table = SNPReport.parse(bundle.report), CertificateTable.parse(bundle.certificates)
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        verify_report(report, table, roots=PRODUCTION, now=datetime.now(UTC))

    path = tmp_path / "default.yaml"
    assert main(["measure", str(image), "--policy-out", str(path), "--name", "demo"]) == 0
    default = Policy.from_raw(parse_yaml(path.read_bytes(), "policy"))
    verdict = appraise(claims(ready, bundle), default, now=datetime.now(UTC))
    assert not verdict.passed
    with pytest.raises(PolicyError, match="INSECURE-SIMULATED"):
        verdict.require()
    assert appraise(claims(ready, bundle), accepting, now=datetime.now(UTC)).passed


@pytest.mark.guarantee("G6")
def test_a_debug_guest_is_genuine_and_refused(serve: Serve, image: Path, tmp_path: Path) -> None:
    with serve("--image", str(image), "--debug-policy") as (ready, _):
        found = claims(ready, ask(ready))
        verdict = appraise(found, policy(image, tmp_path, ready), now=datetime.now(UTC))
    assert found.debug
    with pytest.raises(PolicyError, match=r"debug is on, want off$"):
        verdict.require()


def test_a_changed_image_is_refused(serve: Serve, image: Path, tmp_path: Path) -> None:
    with serve() as (ready, _):
        wanted = policy(image, tmp_path, ready)
    (image / "agent.py").write_text("import os\n")
    with serve() as (ready, _):
        verdict = appraise(claims(ready, ask(ready)), wanted, now=datetime.now(UTC))
    assert [result.check for result in verdict.results if not result.passed] == ["measurement"]


def test_a_claimed_measurement_and_an_old_tcb_are_in_the_report(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "claimed").write_text("cd" * 48)
    with serve("--measurement-file", str(tmp_path / "claimed"), "--tcb", "1,0,8,200") as (ready, _):
        found = claims(ready, ask(ready))
    assert found.measurement == b"\xcd" * 48
    assert found.reported_tcb is not None
    assert found.reported_tcb.levels() == {"bootloader": 1, "tee": 0, "snp": 8, "microcode": 200}


def test_the_keys_survive_a_restart_and_evidence_expires_with_them(serve: Serve, state: Path) -> None:
    with serve() as (first, _):
        bundle = ask(first)
    with serve() as (second, _):
        assert second == first
        assert claims(second, ask(second)).chip_id == claims(first, bundle).chip_id
    ark = state / "ark.der"
    assert ark.read_bytes() == (state / "pki" / "ark.der").read_bytes()
    with pytest.raises(VerifyError, match="expired"):
        verify_report(
            SNPReport.parse(bundle.report),
            CertificateTable.parse(bundle.certificates),
            roots=PRODUCTION.with_insecure([bytes.fromhex(first["ark_sha256"])]),
            now=datetime.now(UTC) + timedelta(days=8 * 365),
        )


def refused(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        call()
    assert caught.value.errno == number


def test_the_mounted_tree_answers_as_configfs_does(serve: Serve) -> None:
    with serve() as (ready, _):
        root = Path(ready["mount"])
        entry = root / "e"
        entry.mkdir()
        assert sorted(path.name for path in entry.iterdir()) == sorted(
            ["inblob", "outblob", "auxblob", "provider", "generation", "privlevel", "privlevel_floor"]
        )
        refused(errno.EEXIST, entry.mkdir)
        refused(errno.EINVAL, (entry / "outblob").read_bytes)
        refused(errno.EFBIG, lambda: (entry / "inblob").write_bytes(bytes(65)))
        refused(errno.EACCES, (entry / "inblob").read_bytes)
        refused(errno.EACCES, lambda: (entry / "outblob").write_bytes(b"x"))
        refused(errno.EACCES, lambda: (entry / "new").write_bytes(b"x"))
        refused(errno.ENOENT, (entry / "new").read_bytes)
        refused(errno.EPERM, (entry / "outblob").unlink)
        refused(errno.EPERM, (entry / "sub").mkdir)
        refused(errno.EPERM, lambda: entry.rename(root / "f"))
        refused(errno.EPERM, lambda: (root / "f").symlink_to("e"))
        refused(errno.EPERM, lambda: os.link(entry / "outblob", root / "f"))
        refused(errno.ENOTDIR, (entry / "outblob").rmdir)
        (entry / "inblob").write_bytes(bytes(64))
        assert len((entry / "outblob").read_bytes()) == 1184
        assert (entry / "generation").read_text() == "2\n"
        assert (entry / "provider").read_text() == "sev_guest\n"
        entry.rmdir()
        refused(errno.ENOENT, entry.rmdir)
        assert list(root.iterdir()) == []


def test_it_ends_cleanly_on_sigterm(serve: Serve) -> None:
    with serve() as (ready, child):
        assert os.path.ismount(ready["mount"])
        child.signal(signal.SIGTERM)
        assert child.wait(10) == 0
        assert not os.path.ismount(ready["mount"])


def test_a_mount_left_by_a_killed_server_is_replaced(serve: Serve) -> None:
    with serve() as (ready, child):
        child.signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
        refused(errno.ENOTCONN, lambda: os.listdir(ready["mount"]))
    with serve() as (ready, _):
        assert claims(ready, ask(ready)).simulated
    assert not os.path.ismount(ready["mount"])


def test_others_may_look_but_only_root_makes_entries(serve: Serve) -> None:
    """As in configfs."""
    with serve() as (ready, _):
        mount = Path(ready["mount"])
        for parent in mount.parents[:-2]:  # all below /tmp
            parent.chmod(0o755)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        run([*nobody, "ls", "-la", str(mount)])
        with pytest.raises(MachineError, match="Permission denied"):
            run([*nobody, "mkdir", str(mount / "x")])
