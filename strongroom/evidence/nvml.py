"""What the driver's management library says of the GPUs, as an agent writes it into its event log.

    {"environment": 2, "cc_feature": 1, "devtools": 0, "multi_gpu": 0, "driver": "580.95.05", "ready": 0}

The numbers are the library's own, and one that nobody has named yet is kept. All of it is the word of the software
that the log's machine measured: it is as good as that measurement, and no device has signed it.

Source: NVML API reference, "Confidential Computing"; nvml.h of driver 610.
"""

from dataclasses import asdict, dataclass
from typing import Final

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON

CC_MODES: Final = ("on", "protected-pcie", "nvle")  # in all of these the host cannot look inside
_ENVIRONMENTS: Final = {0: "unavailable", 1: "simulation", 2: "production"}
_SWITCH: Final = {0: "off", 1: "on"}
_FLAG: Final = {0: "clear", 1: "set"}
_MULTI_GPU: Final = {1: "protected-pcie", 2: "nvle"}
_NUMBERS: Final = ("environment", "cc_feature", "devtools", "multi_gpu", "ready")
_MOST: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NVMLState:
    """Modes of all GPUs together, and the flag that lets work in, as read just before the event."""

    environment: int  # 0 unavailable, 1 simulation, 2 production
    cc_feature: int  # 0 off, 1 on
    devtools: int  # 0 off, 1 on: then the host can look inside
    multi_gpu: int  # 0 none, 1 protected PCIe, 2 NVLE; 0 as well where the driver is too old to say
    driver: str
    ready: int  # 0 clear, 1 set: before the GPUs are judged nobody may have let work in

    @property
    def environment_name(self) -> str:
        return _ENVIRONMENTS.get(self.environment, f"unknown ({self.environment})")

    @property
    def cc_mode(self) -> str:
        """One of CC_MODES, "off", or "unknown" with the numbers."""
        # With protected PCIe the feature itself may read 0.
        mode = _MULTI_GPU.get(self.multi_gpu) if self.multi_gpu else _SWITCH.get(self.cc_feature)
        if mode is None or self.cc_feature not in _SWITCH:
            return f"unknown ({self.cc_feature}, {self.multi_gpu})"
        return mode

    @property
    def devtools_name(self) -> str:
        return _SWITCH.get(self.devtools, f"unknown ({self.devtools})")

    @property
    def ready_name(self) -> str:
        return _FLAG.get(self.ready, f"unknown ({self.ready})")

    def to_json(self) -> dict[str, JSON]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: JSON, at: str) -> "NVMLState":
        if not isinstance(value, dict) or value.keys() != {*_NUMBERS, "driver"}:
            raise FormatError(f"{at}: want exactly the keys {', '.join(_NUMBERS)}, driver")
        driver = value["driver"]
        if not isinstance(driver, str) or not 0 < len(driver) <= 80 or not driver.isprintable():
            raise FormatError(f"{at}.driver: want one line of text, at most 80 characters")
        return cls(driver=driver, **{name: _number(value[name], f"{at}.{name}") for name in _NUMBERS})


def _number(value: JSON, at: str) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:  # bool is an int: type() on purpose
        raise FormatError(f"{at}: got {ascii(value)[:40]}, want a whole number 0..{_MOST}")
    return value
