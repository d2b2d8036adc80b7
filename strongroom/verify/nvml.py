"""What does the measured agent say of its GPUs, and does it agree with what they signed?

The events `gpu` (at admission) and `gpu-ready` (after their evidence was judged) tell what the driver's library said.
No device has signed it. Where a device did sign the same thing, the two must be the same.
"""

from typing import Final

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.nvml import NVMLState
from strongroom.verify.gpus import GPUSet
from strongroom.wire.canonical import parse_json

EVENTS: Final = ("gpu", "gpu-ready")
_MEMBER: Final = "nvml"


def said_of_gpus(events: EventLog, devices: GPUSet) -> NVMLState | None:
    """The state in the log, None where it says nothing.

    FormatError for an event that cannot be read or occurs twice; VerifyError for one that contradicts the other, or
    the devices.
    """
    states = [state for name in EVENTS if (state := _state(events, name)) is not None]
    if len({*states}) > 1:
        raise VerifyError("event log: gpu and gpu-ready differ in what the driver said, want the same")
    if not states:
        return None
    state = states[0]
    if devices.driver_version is not None and state.driver != devices.driver_version:
        raise VerifyError(
            f"event log: gpu driver is {state.driver}, and the gpus signed {devices.driver_version[:80]!a}"
        )
    if state.multi_gpu and (state.cc_mode == "protected-pcie") != devices.protected_pcie:
        signed = "on" if devices.protected_pcie else "off"
        raise VerifyError(
            f"event log: gpu cc mode is {state.cc_mode}, and the gpus signed protected pcie {signed}"
        )
    return state


def _state(events: EventLog, name: str) -> NVMLState | None:
    payload = events.find(name)
    if payload is None:
        return None
    value = parse_json(payload, f"event {name}")
    if not isinstance(value, dict):
        raise FormatError(f"event {name}: not an object")
    return NVMLState.from_json(value[_MEMBER], f"event {name}.{_MEMBER}") if _MEMBER in value else None
