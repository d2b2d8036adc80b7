"""Mirrors guest/stages/measure.py: GPUs are fit before the log, and so the broker, hears of them."""

import asyncio
from pathlib import Path

import pytest

from guest import config
from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.config import Config
from guest.grants import Grants
from guest.machine.tsm import TSMReport
from guest.record import Record
from guest.stages.measure import measure
from guest.system import System
from guest.userdata import Userdata
from strongroom.errors import PolicyError
from strongroom.wire.canonical import parse_json
from tests.fakes.gpus import Machine
from tests.fakes.silicon import silicon

TEXT = """#cloud-config
strongroom:
  version: 1
  broker: {{url: "https://broker.example", spki_sha256: "{hex}"}}
  model: {{name: m, source: /srv/model, key: "kbs:///default/model/m"}}
  door: {{}}
  gpus: {gpus}
"""


class FakeTSM:
    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        return TSMReport(silicon(host_data=bytes(32)).report(report_data), b"", "sev_guest")


def parsed(gpus: int) -> Config:
    raw = TEXT.format(hex="ab" * 32, gpus=gpus).encode()
    return config.parse(Userdata.of(raw))


@pytest.fixture
def guest(tmp_path: Path, machine: Machine) -> System:
    package = tmp_path / "lib/python3.11/site-packages/vllm-0.32.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    return System(
        seed=tmp_path,
        engine_venv=tmp_path,
        attester=Attester(FakeTSM()),
        gpus=machine.gpus(),
        grants=Grants(),
        record=Record(tmp_path / "boot.json"),
        applications=Applications(Attester(FakeTSM())),
        broker=KeyBroker(Attester(FakeTSM())),
    )


SAID = {"environment": 2, "cc_feature": 1, "devtools": 0, "multi_gpu": 2, "driver": "610.43.02", "ready": 0}


@pytest.mark.parametrize(
    ("gpus", "logged", "calls"), [(0, {"count": 0}, 0), (2, {"count": 2, "nvml": SAID}, 6)]
)
def test_the_log_says_how_many_and_what_the_driver_says_of_them(
    guest: System, machine: Machine, gpus: int, logged: dict[str, object], calls: int
) -> None:
    machine.double.set(multi=2)
    asyncio.run(measure(guest, parsed(gpus)))
    assert parse_json(guest.attester.log.find("gpu") or b"", "event") == logged
    assert len(machine.double.calls) == calls


@pytest.mark.guarantee("G19")
def test_a_gpu_with_confidential_computing_off_ends_the_boot_before_any_key(
    guest: System, machine: Machine
) -> None:
    machine.double.set(cc=0, environment=0)
    with pytest.raises(PolicyError, match="gpu: confidential computing is off, want it on"):
        asyncio.run(measure(guest, parsed(2)))
    assert guest.attester.log.events == ()
