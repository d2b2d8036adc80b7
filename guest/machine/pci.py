"""GPUs and switches that the PCI bus shows, and those the driver has taken; finding them opens no device."""

from pathlib import Path
from typing import Final

from strongroom.errors import MachineError

_NVIDIA: Final = "0x10de"
_DISPLAY_CLASSES: Final = (
    "0x0300",
    "0x0302",
)  # VGA and 3D controllers; bridges and audio functions are others
_SWITCH_CLASSES: Final = ("0x0680",)  # NVSwitch calls itself "other bridge"


def nvidia_gpus(devices: Path = Path("/sys/bus/pci/devices")) -> tuple[str, ...]:
    """Bus addresses of every NVIDIA GPU, sorted; empty where there is no PCI bus."""
    return _found(devices, _DISPLAY_CLASSES)


def nvidia_switches(devices: Path = Path("/sys/bus/pci/devices")) -> tuple[str, ...]:
    """Bus addresses of every NVSwitch, sorted."""
    return _found(devices, _SWITCH_CLASSES)


def driven_gpus(driver: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """Bus addresses that the nvidia driver has taken, sorted. Asking the driver itself would open the devices."""
    try:
        return tuple(sorted(entry.name for entry in driver.iterdir()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise MachineError(f"pci: cannot read {driver}: {error.strerror}") from error


def _found(devices: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    if not devices.is_dir():
        return ()
    try:
        found = [
            d.name
            for d in devices.iterdir()
            if (d / "vendor").read_text().strip() == _NVIDIA
            and (d / "class").read_text().strip()[:6] in classes
        ]
    except OSError as error:
        raise MachineError(f"pci: cannot read {devices}: {error.strerror}") from error
    return tuple(sorted(found))
