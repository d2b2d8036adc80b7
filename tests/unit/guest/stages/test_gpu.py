"""Mirrors guest/stages/gpu.py: attested, written down, let in, and evidence of the GPUs in every bundle."""

import asyncio
from pathlib import Path

import pytest

from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.gpus import GPUs
from guest.grants import Grants
from guest.machine import pci
from guest.machine.tsm import TSMReport
from guest.record import Record
from guest.stages import gpu
from guest.stages.gpu import gpus_ready
from guest.stages.tunnel import Tunnel
from guest.system import System
from strongroom.errors import PolicyError, StrongroomError, VerifyError
from strongroom.evidence.binding import Purpose, gpu_digest, gpu_nonce, report_data
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.snp import SNPReport
from strongroom.wire.canonical import parse_json
from tests.fakes.gpus import Machine
from tests.fakes.nvml.double import Double
from tests.fakes.silicon import silicon

KEY, CHALLENGE = b"k" * 91, b"c" * 32


class FakeTSM:
    def __init__(self, double: Double) -> None:
        self._double, self._chip = double, silicon()

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        self._double.note("cpu-report")
        return TSMReport(self._chip.report(report_data), self._chip.certificates(), "sev_guest")


class NotingAttester(Attester):
    """Puts the log's events among the calls."""

    def __init__(self, double: Double, gpus: GPUs) -> None:
        super().__init__(FakeTSM(double), devices=gpus.evidence)
        self._double = double

    async def extend(self, name: str, payload: bytes, *, most: int | None = None) -> None:
        self._double.note(f"event {name}")
        await super().extend(name, payload)


def system(folder: Path, machine: Machine, gpus: GPUs) -> System:
    attester = NotingAttester(machine.double, gpus)
    return System(
        seed=folder,
        engine_venv=folder,
        attester=attester,
        gpus=gpus,
        grants=Grants(),
        record=Record(folder / "boot.json"),
        applications=Applications(attester),
        broker=KeyBroker(attester),
    )


class _Named:
    """Attributes that are only walked through."""

    def __init__(self, **names: object) -> None:
        self.__dict__.update(names)


def tunnel(count: int) -> Tunnel:
    workload = _Named(config=_Named(gpus=count))
    return Tunnel(identity=_Named(volumes=_Named(workload=workload)), unit="n")  # type: ignore[arg-type]


@pytest.fixture
def bus(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "nvidia_gpus", lambda: pci.nvidia_gpus(machine.bus.devices))


async def certify(attester: Attester) -> Bundle:
    """As the door asks, between admission and readiness."""
    return await attester.evidence(purpose=Purpose.RA_TLS, challenge=CHALLENGE, key=KEY)


@pytest.mark.guarantee("G19")
@pytest.mark.usefixtures("bus")
def test_the_whole_way_of_a_boot_with_gpus(machine: Machine, tmp_path: Path) -> None:
    gpus = machine.gpus()
    guest = system(tmp_path, machine, gpus)

    async def boot() -> Bundle:
        await gpus.admit(2, tee="snp")
        bundle = await certify(guest.attester)
        assert (await gpus_ready(guest, tunnel(2))).count == 2
        await gpus.still_ready()
        return bundle

    asyncio.run(boot())
    evidence = ["report 0", "certificate 0", "report 1", "certificate 1"]
    unchanged = ["count", "settings", "ready"]
    assert machine.double.calls == [
        "init", "count", "settings", "capabilities", "ready", "driver",
        *evidence, "cpu-report",
        *unchanged, *evidence, "verify", "event gpu-ready", "set-ready 1", "ready",
        *unchanged,
    ]  # fmt: skip
    logged = parse_json(guest.attester.log.find("gpu-ready") or b"", "event")
    ((devices, _),) = machine.verified
    digest = gpu_digest(devices).hex()
    said = {
        "environment": 2,
        "cc_feature": 1,
        "devtools": 0,
        "multi_gpu": 0,
        "driver": "610.43.02",
        "ready": 0,
    }
    assert logged == {"count": 2, "evidence_sha384": digest, "nvml": said}
    assert guest.record.content["gpus"] == 2
    door, gate = machine.double.nonces[0], machine.double.nonces[2]
    assert door != gate


@pytest.mark.guarantee("G7")
def test_every_bundle_carries_gpu_evidence_made_for_it(machine: Machine, tmp_path: Path) -> None:
    gpus = machine.gpus()
    attester = system(tmp_path, machine, gpus).attester
    assert asyncio.run(certify(attester)).gpus == ()
    asyncio.run(gpus.admit(2, tee="snp"))
    bundle = asyncio.run(certify(attester))
    nonce = gpu_nonce(CHALLENGE, KEY)
    assert [device.report[4:36] for device in bundle.gpus] == [nonce, nonce]
    assert SNPReport.parse(bundle.report).report_data == report_data(
        purpose=Purpose.RA_TLS,
        challenge=CHALLENGE,
        key=KEY,
        gpu_digest=gpu_digest(bundle.gpus),
        context=attester.log.head,
    )
    other = asyncio.run(attester.evidence(purpose=Purpose.CHANNEL, challenge=b"d" * 32, key=KEY))
    assert {*other.gpus}.isdisjoint(bundle.gpus)


@pytest.mark.usefixtures("bus")
def test_none_configured_means_none_present(machine: Machine, tmp_path: Path) -> None:
    guest = system(tmp_path, machine, machine.gpus())
    with pytest.raises(PolicyError, match="gpu: found 2 on the bus, want 0"):
        asyncio.run(gpus_ready(guest, tunnel(0)))
    for device in machine.bus.devices.iterdir():
        (device / "vendor").write_text("0x8086\n")
    assert asyncio.run(gpus_ready(guest, tunnel(0))).count == 0
    assert machine.double.calls == []
    assert guest.attester.log.events == ()


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(
    ("refusal", "event"),
    [(VerifyError("gpu 0: measurement differs at 9"), False), (None, True)],
)
def test_a_refused_boot_never_lets_work_in(
    machine: Machine, tmp_path: Path, refusal: Exception | None, event: bool
) -> None:
    gpus = machine.gpus()
    guest = system(tmp_path, machine, gpus)
    machine.refusal = refusal
    machine.double.set(set_sticks=0)

    async def boot() -> None:
        await gpus.admit(2, tee="snp")
        await gpus_ready(guest, tunnel(2))

    with pytest.raises(StrongroomError):
        asyncio.run(boot())
    assert (guest.attester.log.find("gpu-ready") is not None) == event
    assert machine.double.calls[-1] == "set-ready 0"
