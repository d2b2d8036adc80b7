"""A machine with simulated GPUs behind its door, and what a policy must say to accept it.

No collateral comes with it: what expires is tested elsewhere, at a fixed time.
"""

from dataclasses import replace
from typing import Any

from strongroom.evidence.eventlog import Event, EventLog
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes import composite
from tests.fakes.exchange import events
from tests.fakes.machine import Machine
from tests.fakes.nvidia import DRIVER, VBIOS, nvidia


def log(count: int, **state: Any) -> EventLog:
    """What the agent of such a machine wrote; `state` changes what the driver told it."""
    said = replace(composite.GPU_STATE, **state).to_json()
    told = Event("gpu", pack_json({"count": count, "nvml": said}))
    return EventLog(tuple(told if event.name == "gpu" else event for event in events().events))


def machine(count: int = 2, *, kind: type[Machine] = Machine, **state: Any) -> Machine:
    devices = [nvidia().device(n) for n in range(count)]
    return kind(events=log(count, **state), gpus=lambda nonce: composite.gpus(devices, nonce=nonce))


def accepted(machine: Machine, count: int = 2, **section: JSON) -> dict[str, JSON]:
    """The keys of a policy beside those for a machine without GPUs."""
    roots = {machine.silicon.pki.ark_sha256, *nvidia().roots().insecure}
    gpu: dict[str, JSON] = {
        "architectures": ["hopper"],
        "drivers": [DRIVER],
        "vbios": [VBIOS],
        "require_measurements": False,
        "ocsp_hours": "any",
    }
    return {
        "gpus": count,
        "gpu": gpu | section,
        "insecure_simulated_roots": [root.hex() for root in sorted(roots)],
    }
