"""Config -> Workload: what will run, held against what the silicon says was launched."""

from dataclasses import dataclass

from guest import engine
from guest.attester import Launch
from guest.config import Config
from guest.engine import EnginePlan
from guest.initdata import bind
from guest.system import System
from strongroom.errors import PolicyError
from strongroom.measure.tree import words
from strongroom.wire.canonical import JSON, pack_json


@dataclass(frozen=True, slots=True)
class Workload:
    config: Config
    plan: EnginePlan
    measurement: bytes  # the launch digest, 48 bytes


async def measure(system: System, config: Config) -> Workload:
    """Raises PolicyError when the launcher committed to other userdata, or init-data, than we were given."""
    launch = await system.attester.launch()
    system.record.note(measurement=launch.measurement.hex(), words=words(launch.measurement))
    if (init_data := config.init_data) is not None:
        await bind(system.attester, init_data, launch)
    else:
        _check_committed(config.userdata_sha256, launch)
    plan = engine.plan(config, system.engine_venv)
    system.record.note(engine={"name": "vllm", "version": plan.version, "flags_sha256": plan.flags_sha256})
    # Before anything is asked of the broker: a machine with unfit GPUs gets no key.
    state = await system.gpus.admit(config.gpus, tee=launch.tee)
    gpus: dict[str, JSON] = {"count": config.gpus}
    if state is not None:
        gpus["nvml"] = state.to_json()
    await system.attester.extend("gpu", pack_json(gpus))
    await system.attester.extend("engine", pack_json(plan.claim()))
    return Workload(config=config, plan=plan, measurement=launch.measurement)


def _check_committed(userdata_sha256: bytes, launch: Launch) -> None:
    # All zero: this launcher cannot set it. The log, bound into every later report, still tells verifiers.
    if any(launch.committed) and launch.committed != userdata_sha256.ljust(len(launch.committed), b"\0"):
        name = "mr_config_id" if launch.tee == "tdx" else "host_data"
        raise PolicyError(
            f"userdata: sha256 is {userdata_sha256.hex()}, but the guest was launched with {name} "
            f"{launch.committed.hex()}"
        )
