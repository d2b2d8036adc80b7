"""NVIDIA GPUs through the driver's management library: modes, evidence, and the flag that lets work in.

The only module that knows nvidia-ml-py (`pynvml`). It states what the driver says; what may be accepted is decided
in guest/gpus.py. Calls are made one at a time: collecting evidence is slow and not safe from several threads.

Source: NVML API reference, "Confidential Computing"; nvml.h of driver 610.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol, Self, TypeVar

import pynvml  # type: ignore[import-untyped]

from guest.machine.device import answered, check_nonce, cut
from strongroom.errors import MachineError
from strongroom.evidence.gpu import GPUEvidence

_UNKNOWN_CALL: Final = frozenset(  # what a driver older than a call answers to it
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
_SENTENCES: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "there is no libnvidia-ml.so.1, want the driver's own in the image",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the nvidia driver is not loaded",
    pynvml.NVML_ERROR_NO_PERMISSION: "permission denied, want root with CAP_SYS_ADMIN",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the driver is too old to know this call",
    pynvml.NVML_ERROR_NOT_SUPPORTED: "not supported by this driver or GPU",
    pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU is lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU needs a reset",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "library and kernel driver are of different versions",
    pynvml.NVML_ERROR_TIMEOUT: "the GPU did not answer in time",
}

T = TypeVar("T")


class MultiGPU(IntEnum):
    """How several GPUs are protected together."""

    NONE = 0
    PROTECTED_PCIE = 1
    NVLE = 2  # encrypted NVLink


class CPUCapability(IntEnum):
    """The CPU's confidential computing, as the GPU's driver found it."""

    NONE = 0
    SEV = 1
    TDX = 2
    SEV_SNP = 3
    SNP_VTOM = 4


_ARCHITECTURES: Final = {9: "hopper", 10: "blackwell", 13: "rubin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """Raw numbers of the driver: what it says may be a value nobody has named yet."""

    environment: int  # 0 unavailable, 1 simulation, 2 production
    cc_feature: int
    devtools: int
    multi_gpu: int  # MultiGPU; 0 as well where the driver is too old to say


class Library(Protocol):
    """What the rest of the guest asks of the GPUs. Every method raises MachineError, and nothing else."""

    def driver(self) -> str: ...
    def count(self) -> int: ...
    def mode(self) -> Mode | None: ...
    def cpu_capability(self) -> int: ...
    def ready(self) -> int: ...
    def set_ready(self, ready: bool) -> None: ...
    def evidence(self, index: int, nonce: bytes) -> GPUEvidence: ...
    def close(self) -> None: ...


class NVML:
    """The library, opened. Keep it open: a driver without clients may end its session with the GPU."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    @classmethod
    def open(cls) -> Self:
        with _told("init"):
            pynvml.nvmlInit()
        return cls()

    def close(self) -> None:
        self._call("shutdown", pynvml.nvmlShutdown)

    def driver(self) -> str:
        """The driver's version."""
        return str(self._call("driver version", pynvml.nvmlSystemGetDriverVersion))

    def count(self) -> int:
        return int(self._call("device count", pynvml.nvmlDeviceGetCount))

    def mode(self) -> Mode | None:
        """Modes of the whole system; None when the driver knows no confidential computing at all."""
        return self._call("settings", _settings) or self._call("state", _state)

    def cpu_capability(self) -> int:
        return int(self._call("capabilities", pynvml.nvmlSystemGetConfComputeCapabilities).cpuCaps)

    def ready(self) -> int:
        """The one flag of all GPUs: 1 lets work in."""
        return int(self._call("ready state", pynvml.nvmlSystemGetConfComputeGpusReadyState))

    def set_ready(self, ready: bool) -> None:
        value = int(ready)
        self._call(f"set ready {value}", lambda: pynvml.nvmlSystemSetConfComputeGpusReadyState(value))

    def evidence(self, index: int, nonce: bytes) -> GPUEvidence:
        """A fresh report of one GPU over `nonce` (32 bytes), with its certificates."""
        check_nonce(nonce, f"gpu {index}")
        return self._call(f"evidence of gpu {index}", lambda: _evidence(index, nonce))

    def _call(self, what: str, call: Callable[[], T]) -> T:
        with self._turn, _told(what):
            return call()


def _settings() -> Mode | None:
    # The binding hands out the code here instead of raising: unlooked at, the zeros of the struct would pass.
    found = pynvml.c_nvmlSystemConfComputeSettings_v1_t()
    try:
        code = pynvml.nvmlSystemGetConfComputeSettings(byref(found))
    except pynvml.NVMLError as error:
        code = error.value
    if code in _UNKNOWN_CALL:
        return None
    if code != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(code)
    return _mode(found, found.multiGpuMode)


def _state() -> Mode | None:
    try:
        return _mode(pynvml.nvmlSystemGetConfComputeState(), MultiGPU.NONE)
    except pynvml.NVMLError as error:
        if error.value in _UNKNOWN_CALL:
            return None
        raise


def _mode(found: Any, multi_gpu: int) -> Mode:
    return Mode(
        environment=found.environment,
        cc_feature=found.ccFeature,
        devtools=found.devToolsMode,
        multi_gpu=multi_gpu,
    )


def _evidence(index: int, nonce: bytes) -> GPUEvidence:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    number = pynvml.nvmlDeviceGetArchitecture(handle)
    if (kind := _ARCHITECTURES.get(number)) is None:
        raise MachineError(f"gpu {index}: architecture is {number}, want one of {[*_ARCHITECTURES]}")
    found = pynvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
    report = cut(bytes(found.attestationReport), found.attestationReportSize, f"gpu {index}: report")
    chain = pynvml.nvmlDeviceGetConfComputeGpuCertificate(handle)
    pem = cut(bytes(chain.attestationCertChain), chain.attestationCertChainSize, f"gpu {index}: certificates")
    return answered(kind, report, pem, nonce=nonce, what=f"gpu {index}")


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError as error:
        reason = _SENTENCES.get(error.value) or str(error).lower()
        raise MachineError(f"nvml {what}: {reason}") from error
