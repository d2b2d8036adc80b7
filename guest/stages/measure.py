"""Config -> Workload: what will run, held against what the silicon says was launched."""

from dataclasses import dataclass

from guest import engine
from guest.config import Config
from guest.engine import EnginePlan
from guest.system import System
from strongroom.errors import PolicyError
from strongroom.measure.tree import words
from strongroom.wire.canonical import pack_json


@dataclass(frozen=True, slots=True)
class Workload:
    config: Config
    plan: EnginePlan
    measurement: bytes  # the launch digest, 48 bytes


async def measure(system: System, config: Config) -> Workload:
    """Raises PolicyError when the launcher committed to other userdata than we were given."""
    report = await system.attester.own_report()
    system.record.note(measurement=report.measurement.hex(), words=words(report.measurement))
    # All zero: this launcher cannot set HOST_DATA. The log, bound into every later report, still tells verifiers.
    if any(report.host_data) and report.host_data != config.userdata_sha256:
        raise PolicyError(
            f"userdata: sha256 is {config.userdata_sha256.hex()}, but the guest was launched with host_data "
            f"{report.host_data.hex()}"
        )
    plan = engine.plan(config, system.engine_venv)
    system.record.note(engine={"name": "vllm", "version": plan.version, "flags_sha256": plan.flags_sha256})
    await system.attester.extend("gpu", pack_json({"count": config.gpus}))
    await system.attester.extend("engine", pack_json(plan.claim()))
    return Workload(config=config, plan=plan, measurement=report.measurement)
