"""GPUs that the PCI bus shows, found without a driver."""

from pathlib import Path
from typing import Final

from strongroom.errors import MachineError

_NVIDIA: Final = "0x10de"
_DISPLAY_CLASSES: Final = (
    "0x0300",
    "0x0302",
)  # VGA and 3D controllers; bridges and audio functions are others


def nvidia_gpus(devices: Path = Path("/sys/bus/pci/devices")) -> tuple[str, ...]:
    """Bus addresses of every NVIDIA GPU, sorted; empty where there is no PCI bus."""
    if not devices.is_dir():
        return ()
    try:
        found = [
            d.name
            for d in devices.iterdir()
            if _is_gpu((d / "vendor").read_text(), (d / "class").read_text())
        ]
    except OSError as error:
        raise MachineError(f"pci: cannot read {devices}: {error.strerror}") from error
    return tuple(sorted(found))


def _is_gpu(vendor: str, kind: str) -> bool:
    return vendor.strip() == _NVIDIA and kind.strip()[:6] in _DISPLAY_CLASSES
