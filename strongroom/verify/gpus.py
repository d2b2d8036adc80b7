"""Do these devices make the one machine that was expected? Number, distinctness, equality, wiring."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from strongroom.errors import VerifyError
from strongroom.verify.nvidia import Architecture, GPUClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUSet:
    """GPUs that are alike and, in protected PCIe, the switches between them. Only `verify_set` makes these."""

    gpus: tuple[GPUClaims, ...]
    switches: tuple[GPUClaims, ...]
    architecture: Architecture
    driver_version: str | None
    vbios_version: str
    protected_pcie: bool
    simulated: bool
    not_checked: tuple[str, ...]


def verify_set(
    gpus: Sequence[GPUClaims],
    switches: Sequence[GPUClaims] = (),
    *,
    count: int,
    topology: Literal["require", "skip"] = "require",
) -> GPUSet:
    """The set, or VerifyError for what keeps these devices from being `count` like GPUs wired to one another.

    In protected PCIe links between GPUs are in plain text and the switches see them, so every switch that a GPU
    names must be here and name every GPU in turn; "skip" leaves that out, and says so in `not_checked`.
    """
    if count < 1 or len(gpus) != count:
        raise VerifyError(f"gpus: {len(gpus)} attested, want {count}")
    if any(gpu.kind != "gpu" for gpu in gpus) or any(switch.kind != "switch" for switch in switches):
        raise VerifyError("gpus: a switch among the gpus, or a gpu among the switches")
    devices = (*gpus, *switches)
    _check_distinct(devices)
    _alike("nonce", (device.nonce for device in devices))
    _alike("root", (device.root_sha256 for device in devices))
    _alike("chip", (gpu.chip for gpu in gpus))
    _alike("driver version", (gpu.driver_version for gpu in gpus))
    _alike("vbios version", (gpu.vbios_version for gpu in gpus))
    _alike("protected pcie", (gpu.protected_pcie for gpu in gpus))
    _alike("feature flag", (gpu.feature_flag for gpu in gpus))
    _alike("vbios version of switches", (switch.vbios_version for switch in switches))
    first = gpus[0]
    if switches and not first.protected_pcie:
        raise VerifyError(f"gpus: {len(switches)} switches without protected pcie, want none")
    is_open = first.protected_pcie and topology == "skip"
    if first.protected_pcie and not is_open:
        _check_wiring(gpus, switches)
    return GPUSet(
        gpus=tuple(gpus),
        switches=tuple(switches),
        architecture=first.architecture,
        driver_version=first.driver_version,
        vbios_version=first.vbios_version,
        protected_pcie=first.protected_pcie,
        simulated=first.simulated,
        not_checked=("wiring of gpus and switches",) if is_open else (),
    )


def _check_distinct(devices: Sequence[GPUClaims]) -> None:
    # Each alone would do for genuine devices; a device with two attestation keys is still one device.
    for name in ("serial", "device_serial", "pdi"):
        if (distinct := len({getattr(device, name) for device in devices})) != len(devices):
            raise VerifyError(f"gpus: {len(devices)} devices are {distinct} by {name}, want all distinct")


def _alike(what: str, values: Iterable[object]) -> None:
    if (distinct := len(set(values))) > 1:
        raise VerifyError(f"gpus: {distinct} values of {what}, want one in all")


def _check_wiring(gpus: Sequence[GPUClaims], switches: Sequence[GPUClaims]) -> None:
    attested = {switch.pdi for switch in switches}
    for n, gpu in enumerate(gpus):
        if gpu.switch_pdis != attested or not attested:
            raise VerifyError(
                f"gpu {n}: linked to {len(gpu.switch_pdis)} switches, want the {len(attested)} attested ones"
            )
    known = {gpu.pdi for gpu in gpus}
    for n, switch in enumerate(switches):
        if switch.gpu_pdis != known:
            raise VerifyError(
                f"switch {n}: linked to {len(switch.gpu_pdis)} gpus, want the {len(known)} attested ones"
            )
