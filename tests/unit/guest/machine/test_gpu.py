"""Mirrors guest/machine/gpu.py: the real nvidia-ml-py, over a C library that answers what the test says."""

import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from guest.machine.gpu import NVML, Mode, MultiGPU
from strongroom.errors import MachineError
from strongroom.host.run import run
from tests import ROOT
from tests.fakes.gpus import SPEC, Machine, chain
from tests.fakes.nvml.double import Double, bound, build

NONCE = bytes(range(32))
PRODUCTION = Mode(environment=2, cc_feature=1, devtools=0, multi_gpu=MultiGPU.NONE)
STATE_ONLY = ["nvmlSystemGetConfComputeSettings"]
NO_CC = [*STATE_ONLY, "nvmlSystemGetConfComputeState"]


def test_what_the_driver_says(double: Double) -> None:
    nvml = NVML.open()
    assert (nvml.driver(), nvml.count(), nvml.mode()) == ("610.43.02", 1, PRODUCTION)
    assert (nvml.cpu_capability(), nvml.ready()) == (3, 0)
    nvml.set_ready(True)
    assert nvml.ready() == 1
    nvml.close()
    assert double.calls == [
        "init", "driver", "count", "settings", "capabilities", "ready", "set-ready 1", "ready", "shutdown",
    ]  # fmt: skip


def test_evidence_is_cut_to_its_size_and_certificates_are_der(machine: Machine) -> None:
    found = NVML.open().evidence(1, NONCE)
    assert found.kind == "hopper"
    assert found.report == SPEC + NONCE + bytes([1]) * 800
    assert found.certificates == b"".join(c.public_bytes(Encoding.DER) for c in chain(1))
    assert machine.double.nonces == [NONCE.hex()]


def test_a_terminated_chain_is_the_same_chain(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "chain0"
    plain = NVML.open().evidence(0, NONCE)
    file.write_bytes(file.read_bytes() + b"\0")
    assert NVML.open().evidence(0, NONCE) == plain


@pytest.mark.parametrize(("number", "kind"), [(9, "hopper"), (10, "blackwell"), (13, "rubin")])
def test_a_device_is_of_a_known_kind(machine: Machine, number: int, kind: str) -> None:
    machine.double.set(architecture=number)
    assert NVML.open().evidence(0, NONCE).kind == kind


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"architecture": 8}, r"gpu 0: architecture is 8, want one of \[9, 10, 13\]"),
        ({"fresh": 0}, "gpu 0: report answers another nonce than it was asked with"),
        ({"report_size": 0}, r"gpu 0: report: 0 bytes, want 1\.\.8192"),
        ({"report_size": 8193}, r"gpu 0: report: 8193 bytes, want 1\.\.8192"),
        ({"report_size": 20}, "gpu 0: report answers another nonce"),
        ({"chain_size": 0}, r"gpu 0: certificates: 0 bytes, want 1\.\.5120"),
        ({"chain_size": 5121}, r"gpu 0: certificates: 5121 bytes, want 1\.\.5120"),
        ({"chain_size": 100}, "gpu 0: certificates are no PEM chain"),
        ({"handle": 15}, "nvml evidence of gpu 0: the GPU is lost"),
        ({"report": 3}, "nvml evidence of gpu 0: not supported by this driver or GPU"),
        ({"report": 10}, "nvml evidence of gpu 0: the GPU did not answer in time"),
        ({"certificate": 999}, "nvml evidence of gpu 0: unknown error"),
    ],
)
def test_evidence_that_is_none_is_told(machine: Machine, state: dict[str, int], why: str) -> None:
    machine.double.set(**state)
    with pytest.raises(MachineError, match=why):
        NVML.open().evidence(0, NONCE)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_32_bytes_are_a_nonce(machine: Machine, size: int) -> None:
    with pytest.raises(MachineError, match=f"nonce is {size} bytes, want 32"):
        NVML.open().evidence(0, bytes(size))
    assert not machine.double.nonces


@pytest.mark.parametrize("code", [1, 4, 15, 999])
def test_a_code_the_binding_does_not_raise_is_raised(double: Double, code: int) -> None:
    double.set(settings=code)
    with pytest.raises(MachineError, match="nvml settings: "):
        NVML.open().mode()
    assert "state" not in double.calls


@pytest.mark.parametrize("code", [3, 13, 25])
def test_a_driver_that_does_not_know_settings_is_asked_for_its_state(double: Double, code: int) -> None:
    double.set(settings=code, multi=1)
    assert NVML.open().mode() == PRODUCTION
    assert double.calls == ["init", "settings", "state"]


def test_a_driver_without_confidential_computing_has_no_mode(double: Double) -> None:
    double.set(settings=3, state=3)
    assert NVML.open().mode() is None
    double.set(state=4)
    with pytest.raises(MachineError, match="nvml state: permission denied, want root"):
        NVML.open().mode()


def test_an_old_library_lacks_the_newer_calls(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with bound(build(tmp_path / "old", without=STATE_ONLY), tmp_path):
        assert NVML.open().mode() == PRODUCTION
    (tmp_path / "older").mkdir()
    with bound(
        build(tmp_path / "older", without=[*NO_CC, "nvmlSystemGetConfComputeGpusReadyState"]), tmp_path
    ):
        nvml = NVML.open()
        assert nvml.mode() is None
        with pytest.raises(MachineError, match="nvml ready state: the driver is too old to know this call"):
            nvml.ready()


def test_only_root_sets_the_flag(double: Double) -> None:
    double.set(set_ready=4)
    with pytest.raises(
        MachineError, match="nvml set ready 1: permission denied, want root with CAP_SYS_ADMIN"
    ):
        NVML.open().set_ready(True)


@pytest.mark.parametrize(
    ("code", "why"),
    [(9, "the nvidia driver is not loaded"), (18, "library and kernel driver are of different versions")],
)
def test_a_library_that_does_not_start(double: Double, code: int, why: str) -> None:
    double.set(init=code)
    with pytest.raises(MachineError, match=f"nvml init: {why}"):
        NVML.open()


def test_evidence_is_collected_one_device_at_a_time(machine: Machine) -> None:
    machine.double.set(slow_us=20_000)
    nvml = NVML.open()
    threads = [threading.Thread(target=nvml.evidence, args=(n % 2, NONCE)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(machine.double.nonces) == 6
    assert "overlap" not in machine.double.calls


ASK = """
from guest.machine.gpu import NVML
from strongroom.errors import MachineError
try:
    print(NVML.open().mode())
except MachineError as error:
    print(error)
"""


def test_the_library_is_found_by_its_name_or_missed(
    nvml_library: Path, double: Double, tmp_path: Path
) -> None:
    def said(**env: str) -> str:
        argv = [sys.executable, "-c", ASK]
        return run(argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT), **env}).stdout.decode().strip()

    found = said(LD_LIBRARY_PATH=str(nvml_library.parent), NVML_DOUBLE=str(tmp_path))
    assert found == "Mode(environment=2, cc_feature=1, devtools=0, multi_gpu=0)"
    assert double.calls == ["init", "settings"]
    if "Mode" not in (missed := said()):  # a build machine with a GPU has the real one
        assert missed == "nvml init: there is no libnvidia-ml.so.1, want the driver's own in the image"
