"""A door on a machine with a vTPM that a simulated cloud certified: its quote is in the evidence, and is judged."""

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.silicon.vtpm import vtpm
from demo.silicon.vtpm_authority import certify
from guest.attester import Attester
from guest.machine.vtpm import VTPM
from strongroom.cli.main import main
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.wire.canonical import JSON
from tests import need
from tests.fakes.exchange import events
from tests.fakes.machine import Machine, policy_file
from tests.fakes.served import Served, served
from tests.unit.guest.test_evidence import FakeTSM

Capture = pytest.CaptureFixture[str]
FOLLOWED: JSON = {"states": [{"name": "as the log says", "pcrs": {"pcr15": "events"}}]}


class Quoting:
    """The guest's own attester behind the agent's socket, on silicon and a TPM of the test."""

    def __init__(self, path: Path) -> None:
        self.root = certify(path)
        self.device = VTPM(path)
        assert self.device.prepare() is None
        self._attester = Attester(FakeTSM(), self.device)
        self._thread = ThreadPoolExecutor(1)
        for event in events().events:
            asyncio.run(self._attester.extend(event.name, event.payload))

    def __call__(self, *, purpose: Purpose, challenge: bytes, key: bytes, events: EventLog) -> Bundle:
        made = self._attester.evidence(purpose=purpose, challenge=challenge, key=key)
        return self._thread.submit(asyncio.run, made).result(20)


@pytest.fixture
def quoting(socket_dir: Path) -> Iterator[Quoting]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir / "tpm") as path:
        yield Quoting(path)


@pytest.fixture
def door(socket_dir: Path, quoting: Quoting) -> Iterator[Served]:
    with served(socket_dir, make=quoting) as (door, _):
        yield door


def policy(directory: Path, quoting: Quoting, **changes: JSON) -> str:
    machine = Machine()
    roots: list[JSON] = [machine.silicon.pki.ark_sha256.hex(), quoting.root.hex()]
    return str(
        policy_file(directory, machine, **{"insecure_simulated_roots": roots, "tpm": FOLLOWED} | changes)
    )


@pytest.mark.guarantee("G7")
def test_the_quote_is_verified_and_shown(
    door: Served, quoting: Quoting, tmp_path: Path, capsys: Capture
) -> None:
    accepted = policy(tmp_path, quoting)
    assert main(["verify", door.url, "--policy", accepted]) == 0
    out = capsys.readouterr().out
    assert "tpm state" in out and "as the log says" in out and "REFUSED" not in out
    receipt = tmp_path / "receipt.json"
    assert main(["chat", door.url, "hello", "--policy", accepted, "--receipt", str(receipt)]) == 0
    assert main(["receipt", "verify", str(receipt), "--policy", accepted]) == 0
    # The register goes on, the log does not: what is told is no longer what happened.
    quoting.device.extend(bytes(32))
    capsys.readouterr()
    assert main(["verify", door.url, "--policy", accepted]) == 5
    assert "tpm quote: pcr 15 is" in capsys.readouterr().err


@pytest.mark.guarantee("G18")
@pytest.mark.parametrize(
    ("changes", "code", "why"),
    [
        (
            {"insecure_simulated_roots": [Machine().silicon.pki.ark_sha256.hex()]},
            5,
            "the pinned gcp_vtpm root",
        ),
        ({"tpm": None}, 6, "tpm quote is present"),
        ({"tpm": {"states": [{"name": "other", "pcrs": {"pcr0": "11" * 32}}]}}, 6, "tpm state is"),
    ],
)
def test_a_quote_nobody_accepts_is_a_refusal(
    changes: dict[str, JSON],
    code: int,
    why: str,
    door: Served,
    quoting: Quoting,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    assert main(["chat", door.url, "hello", "--policy", policy(tmp_path, quoting, **changes)]) == code
    assert why in capsys.readouterr().err
    assert door.engine.asked == []
