"""A verdict as the claims of an EAR (draft-ietf-rats-ear), for whoever reads those instead of ours.

One submodule for the CPU and all that is measured with it, one for each GPU and switch. Each has a
trustworthiness vector (draft-ietf-rats-ar4si): 2, or 3 for executables, where every check of an aspect held; a
contraindicating number where one did not. There is no warning in between: what a policy refuses is refused. An
aspect nobody checked is 0, and a submodule without any check is "none".
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from strongroom.appraise.result import Aspect, Result
from strongroom.appraise.verdict import Verdict
from strongroom.verify.claims import Claims
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.wire.canonical import JSON

PROFILE: Final = "tag:github.com,2023:veraison/ear"
LIFE: Final = timedelta(minutes=5)
_APPROVED: Final = {Aspect.EXECUTABLES: 3}  # "approved boot"; 2 everywhere else
_REFUSED: Final = {
    Aspect.HARDWARE: 97,  # not recognised
    Aspect.CONFIGURATION: 96,
    Aspect.EXECUTABLES: 96,
    Aspect.FILE_SYSTEM: 96,
}
_TIERS: Final = (
    (1, "none"),
    (31, "affirming"),
    (95, "warning"),
)  # the largest value of each; beyond: contraindicated


def ear_claims(
    verdict: Verdict, claims: Claims, *, policy_id: str, now: datetime, life: timedelta = LIFE
) -> dict[str, JSON]:
    """The claims set, unsigned. `policy_id` names the policy, best by its digest."""
    gpu = [result for result in verdict.results if claims.devices is not None and _is_of_devices(result)]
    cpu = [result for result in verdict.results if result not in gpu]
    submods: dict[str, JSON] = {"cpu0": _submodule(cpu, verdict, policy_id, {claims.tee: _cpu(claims)})}
    if claims.devices is not None:
        for kind, devices in (
            ("gpu", claims.devices.devices.gpus),
            ("switch", claims.devices.devices.switches),
        ):
            for n, device in enumerate(devices):
                evidence: dict[str, JSON] = {
                    "architecture": device.architecture,
                    "driver-version": device.driver_version,
                    "vbios-version": device.vbios_version,
                }
                submods[f"{kind}{n}"] = _submodule(
                    gpu, verdict, policy_id, {"nvidia": evidence, **_said(claims)}
                )
    return {
        "eat_profile": PROFILE,
        "iat": int(now.timestamp()),
        "exp": int((now + life).timestamp()),
        "ear.verifier-id": {"developer": "strongroom", "build": "appraise"},
        "submods": submods,
    }


def vector(results: Iterable[Result]) -> dict[Aspect, int]:
    """The trustworthiness of every aspect."""
    values = dict.fromkeys(Aspect, 0)
    for result in results:
        value = _APPROVED.get(result.aspect, 2) if result.passed else _REFUSED[result.aspect]
        values[result.aspect] = max(values[result.aspect], value)
    return values


def status(values: Mapping[Aspect, int]) -> str:
    """The tier of the worst value."""
    worst = max(values.values(), default=0)
    return next((tier for most, tier in _TIERS if worst <= most), "contraindicated")


def _submodule(
    results: list[Result], verdict: Verdict, policy_id: str, evidence: dict[str, JSON]
) -> dict[str, JSON]:
    values = vector(results)
    if (
        verdict.simulated
    ):  # also where a policy accepts it: whoever reads this may not have written that policy
        values[Aspect.HARDWARE] = _REFUSED[Aspect.HARDWARE]
    reasons: list[JSON] = [str(result) for result in results if not result.passed]
    return {
        "ear.status": status(values),
        "ear.trustworthiness-vector": {aspect.value: value for aspect, value in values.items()},
        "ear.appraisal-policy-id": policy_id,
        "ear.veraison.annotated-evidence": evidence,
        "ear.strongroom.reasons": reasons,
        "ear.strongroom.not-checked": list(verdict.not_checked),
    }


def _cpu(claims: Claims) -> dict[str, JSON]:
    found: dict[str, JSON] = {
        "silicon": SIMULATED_LABEL if claims.simulated else "genuine",
        "product": claims.product,
        "measurement": claims.measurement.hex(),
        "host-data": claims.host_data.hex(),
        "debug": claims.debug,
    }
    if claims.events is not None:
        found["event-log-head"] = claims.events.head.hex()
    if claims.tdx is not None:
        found |= {f"rtmr{n}": value.hex() for n, value in enumerate(claims.tdx.body.rtmrs)}
        found["tcb-status"] = claims.tdx.tcb_status.value
    if claims.tpm is not None:
        found["pcrs"] = {str(index): value.hex() for index, value in claims.tpm.pcrs.items()}
    return found


def _said(claims: Claims) -> dict[str, JSON]:
    """Of all devices together, by the measured agent and no device."""
    if (state := claims.gpu_state) is None:
        return {}
    said: dict[str, JSON] = {
        "cc-mode": state.cc_mode,
        "devtools": state.devtools_name,
        "environment": state.environment_name,
        "driver-version": state.driver,
        "ready-flag": state.ready_name,
    }
    return {"nvml-by-agent": said}


def _is_of_devices(result: Result) -> bool:
    return result.check.startswith(("gpu ", "switch "))  # how many there are is the machine's own matter
